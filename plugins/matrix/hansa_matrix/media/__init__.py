"""Files that people send: those of this server, and what was fetched of others."""
