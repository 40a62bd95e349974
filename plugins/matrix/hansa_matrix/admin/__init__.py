"""The admin commands of a Matrix network."""
