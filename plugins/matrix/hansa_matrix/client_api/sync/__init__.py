"""What happened since a client asked last. SPEC: client-server API, "Syncing"."""
