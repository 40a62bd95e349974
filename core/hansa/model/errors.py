"""The four bases of every error: whose fault it is, and what the answer to a peer should be."""

from __future__ import annotations


class HansaError(Exception):
    """Base of all errors that Hansa raises on purpose."""


class LocalProtocolError(HansaError):
    """Our own code asked a protocol layer for something the protocol forbids: a bug here, not at a peer."""


class InternalError(LocalProtocolError):
    """The submission caused an error in this server. The text is for the log: the caller only learns that it
    was an internal error.
    """


class RemoteProtocolError(HansaError):
    """A peer sent something its protocol forbids.

    ``hint`` is the HTTP-like status to answer with; ``code`` is the protocol's own error name
    (``M_BAD_JSON``, ``bad-request``), empty where the protocol has none.
    """

    def __init__(self, reason: str, *, hint: int = 400, code: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.code = code


class ConfigError(HansaError):
    """The operator's configuration is wrong. ``path`` is the TOML path of the mistake."""

    def __init__(self, reason: str, *, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path


class PluginError(HansaError):
    """A plugin broke its contract. The message names the plugin and, where known, file and line."""


class Busy(HansaError):  # likewise
    """A bounded queue is full, or a rate is used up: tell the peer to come back after ``after`` seconds.
    ``decision`` is set where a policy says so.
    """

    def __init__(self, reason: str, *, after: float = 1.0, decision: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after
        self.decision = decision
