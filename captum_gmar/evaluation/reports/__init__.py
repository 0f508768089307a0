"""From results to tables, and from tables to files."""
