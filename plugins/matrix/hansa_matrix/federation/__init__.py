"""Talking to other Matrix servers: requests out, requests in, one queue per destination."""
