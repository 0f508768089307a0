"""What the methods cost, and how exact they are: ``python -m benchmarks``."""
