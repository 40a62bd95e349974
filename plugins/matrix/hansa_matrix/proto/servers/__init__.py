"""What servers say of themselves and of each other. SPEC: server-server API, "Authentication"."""
