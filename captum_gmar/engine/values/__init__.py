"""Values that attention mixes, on any grid, times their gradient."""
