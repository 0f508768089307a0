"""A run over a data set: in batches, shared among processes, kept in a folder, and gone on with."""
