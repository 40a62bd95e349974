"""The contexts of TLS between servers. Files that change are read again at the next handshake; the last that
could be read are used while they cannot.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_ALPN = ["xmpp-server"]


def _tell_nobody(_text: str) -> None:
    return None


@dataclass(slots=True)
class Certificates:
    """The certificate of this server, and the authorities that it trusts besides the system's. ``tell`` is
    told once of files that changed and cannot be read.
    """

    chain: Path
    key: Path
    ca_file: Path | None = None
    tell: Callable[[str], None] = _tell_nobody
    _made: dict[tuple[bool, bool], ssl.SSLContext] = field(default_factory=dict)
    #: The times of the files in use, and of those that could not be read.
    _seen: tuple[int, ...] = ()
    _refused: tuple[int, ...] = ()

    def server_context(self, *, verify: bool = True) -> ssl.SSLContext:
        """For connections that come in. A certificate that a peer shows must be valid if ``verify``."""
        return self._find_context(server=True, verify=verify)

    def client_context(self, *, verify: bool = True) -> ssl.SSLContext:
        """For connections that go out. The peer's certificate is one of the name that is asked for if
        ``verify``.
        """
        return self._find_context(server=False, verify=verify)

    def _find_context(self, *, server: bool, verify: bool) -> ssl.SSLContext:
        seen = self._read_times()
        if seen not in (self._seen, self._refused):
            self._replace_contexts(seen)
        return self._made[server, verify]

    def _read_times(self) -> tuple[int, ...]:
        files = [self.chain, self.key, *([self.ca_file] if self.ca_file is not None else [])]
        return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)

    def _replace_contexts(self, seen: tuple[int, ...]) -> None:
        """Raises OSError, of which ``ssl.SSLError`` is one, if there are no contexts from before."""
        try:
            made = {
                (server, verify): self._make_context(server=server, verify=verify)
                for server in (False, True)
                for verify in (False, True)
            }
        except OSError as error:
            if not self._made:
                raise
            self._refused = seen
            self.tell(f"{self.chain} and {self.key} cannot be used, the ones from before stay: {error}")
        else:
            self._made, self._seen, self._refused = made, seen, ()

    def _make_context(self, *, server: bool, verify: bool) -> ssl.SSLContext:
        # The purpose says whose certificates are verified: those of servers, which are also clients here.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if verify:
            context.verify_mode = ssl.CERT_OPTIONAL if server else ssl.CERT_REQUIRED
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            if self.ca_file is not None:
                context.load_verify_locations(self.ca_file)
            context.check_hostname = not server
        context.load_cert_chain(self.chain, self.key)
        context.set_alpn_protocols(_ALPN)
        return context
