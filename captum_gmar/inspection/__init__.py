"""One image looked at closely: several methods side by side, and the explorer for notebooks."""
