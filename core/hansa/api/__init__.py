"""The interfaces that a plugin implements, and the context that it gets."""
