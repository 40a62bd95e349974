"""Accounts: login, devices, account data and push rules."""
