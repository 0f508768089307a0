"""Attention maps, captured forward and propagated backward, last layer first."""
