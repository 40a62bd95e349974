"""Rooms: their events, their state, and who may change it."""
