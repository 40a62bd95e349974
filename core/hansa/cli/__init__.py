"""The commands of ``hansa``, each imported when it is asked for."""
