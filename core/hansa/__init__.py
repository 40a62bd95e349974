"""Hansa: a plugin-based federation framework. This module is the whole public surface for plugins."""

__version__ = "0.1.0"
API = 1
