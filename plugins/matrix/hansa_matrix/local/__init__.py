"""The parts of users of this server: their client stream, their memberships, their transaction ids."""
