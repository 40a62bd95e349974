"""What belongs to people rather than to rooms: devices, keys, messages to devices, profiles, presence."""
