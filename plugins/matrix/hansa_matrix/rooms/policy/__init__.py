"""The decisions of policies about a room's events."""
