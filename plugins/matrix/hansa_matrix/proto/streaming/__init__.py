"""Large bodies of peers, read piece by piece."""
