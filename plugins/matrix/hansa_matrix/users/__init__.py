"""The parts of users rather than rooms: devices, keys, messages to devices, profiles, presence."""
