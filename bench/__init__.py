"""What an event costs: fake remote homeservers over real TLS against real processes."""
