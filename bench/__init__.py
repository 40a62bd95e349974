"""The cost of an event: fake remote homeservers over real TLS against real processes."""
