"""What the users of this server are told: their stream, their memberships, their transaction ids."""
