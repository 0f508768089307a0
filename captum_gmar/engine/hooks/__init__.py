"""Interception of torch's functions and modules in one pass and one thread."""
