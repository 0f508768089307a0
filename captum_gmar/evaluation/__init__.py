"""Methods measured on a data set: read, shared out, resumed, summed up and written down."""
