"""The importance of heads over a data set: measured, summed up and drawn."""
