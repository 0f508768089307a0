"""Runs over a data set: shared out among processes, kept, resumed."""
