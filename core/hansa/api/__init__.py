"""What a plugin implements and what it is given."""
