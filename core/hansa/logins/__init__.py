"""Logins of people with accounts of their own on other networks."""
