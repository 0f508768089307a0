"""What a run has measured, summed up and written down."""
