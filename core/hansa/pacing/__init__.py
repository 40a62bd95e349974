"""When and how fast: back-off, token buckets, fair turns, limits of the log."""
