"""An image classifier with its image processor: loaded, asked, and its classes by name."""
