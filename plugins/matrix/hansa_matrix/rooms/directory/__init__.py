"""Room aliases, the public list and summaries. SPEC: client-server API, "Listing rooms"."""
