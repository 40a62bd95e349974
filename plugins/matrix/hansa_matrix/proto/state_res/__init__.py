"""State resolution. SPEC: room versions 1 to 12, "State resolution"."""
