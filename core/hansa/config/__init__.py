"""The configuration: its tables, how they are read, and what an error in them says."""
