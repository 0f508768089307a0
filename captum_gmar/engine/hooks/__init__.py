"""Calls of torch's functions and modules, intercepted for one pass in one thread."""
