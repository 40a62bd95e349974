"""What bounds memory, rows and concurrency, with a share for each peer."""
