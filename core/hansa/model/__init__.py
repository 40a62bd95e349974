"""The nouns: values and pure functions, importable by every layer."""
