"""What the makers of the package run by hand: measures of its layout, and the making of the built-in model."""
