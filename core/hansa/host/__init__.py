"""The life of plugins: they are found, opened, started, supervised and stopped."""
