"""Joins, invites, knocks and leaves with other servers. SPEC: server-server API, "Joining Rooms"."""
