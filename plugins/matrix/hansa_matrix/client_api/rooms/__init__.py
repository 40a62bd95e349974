"""Rooms, as clients make, enter, read and change them."""
