"""The documents of servers about themselves and about each other. SPEC: server-server API,
"Authentication".
"""
