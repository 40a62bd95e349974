"""Where everything durable is kept: SQLite or MongoDB behind one contract."""
