"""The ``/sync`` endpoint. SPEC: client-server API, "Syncing"."""
