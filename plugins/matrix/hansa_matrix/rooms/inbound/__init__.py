"""PDUs on their way into a room. SPEC: server-server API, "Checks performed on receipt of a PDU"."""
