"""The authorisation rules of all room versions. SPEC: room versions 1 to 12, "Authorization rules"."""
