"""Images, labels, boxes and masks, and the model that is explained."""
