"""HTTP on both sides: listeners with their limits, and the client with its guards."""
