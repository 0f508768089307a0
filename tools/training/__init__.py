"""One training loop for the models of these tools: stages, optimizers, scenes, and reports."""
