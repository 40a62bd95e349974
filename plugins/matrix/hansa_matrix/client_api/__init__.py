"""What people's clients ask: the client-server API. SPEC: client-server API, v1.19."""
