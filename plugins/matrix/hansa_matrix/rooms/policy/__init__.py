"""What policies decide of a room's events."""
