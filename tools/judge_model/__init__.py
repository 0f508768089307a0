"""A second trained model for the built-in scenes, of another kind, for judging what was chosen with the first."""
