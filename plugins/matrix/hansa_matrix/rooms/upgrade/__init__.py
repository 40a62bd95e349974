"""From a room to the one that replaces it. SPEC: client-server API, "Room Upgrades"."""
