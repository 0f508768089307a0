"""What is measured of the maps of a batch, and of the controls beside them."""
