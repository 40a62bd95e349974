"""Streams to and from other XMPP servers, without a server beside this one: docs/xmpp.md, ADR 34."""
