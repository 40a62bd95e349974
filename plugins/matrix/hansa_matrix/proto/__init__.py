"""Rules of the Matrix protocol: pure functions, no clock, no store, no network."""
