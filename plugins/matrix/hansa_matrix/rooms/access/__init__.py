"""Access to a room: the events that servers and users may read, and the checks on entering."""
