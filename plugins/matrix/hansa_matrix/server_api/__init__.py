"""The answers to other servers, each checked as its section of the specification says."""
