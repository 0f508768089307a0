"""The images, labels, boxes and masks that methods are measured on, and the model that is explained."""
