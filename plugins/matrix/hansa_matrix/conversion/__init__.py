"""Between the events of Matrix and the nouns of the core, in both directions."""
