"""Limits on memory, rows and concurrency, with a share for each peer."""
