"""What servers and users may read of a room, and who may enter it."""
