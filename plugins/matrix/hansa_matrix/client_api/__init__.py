"""The client-server API. SPEC: client-server API, v1.19."""
