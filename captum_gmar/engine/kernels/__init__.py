"""Attention and its gradient, reduced without T×T matrices in memory."""
