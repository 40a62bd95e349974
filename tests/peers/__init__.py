"""Real peers on loopback, for end-to-end tests and the demo."""
