"""The contexts of TLS between servers. Files that change are read again at the next handshake."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

_ALPN = ["xmpp-server"]


@dataclass(slots=True)
class Certificates:
    """The certificate of this server, and the authorities that it trusts besides the system's."""

    chain: Path
    key: Path
    ca_file: Path | None = None
    _made: dict[tuple[bool, bool], ssl.SSLContext] = field(default_factory=dict)
    _seen: tuple[int, ...] = ()

    def server_context(self, *, verify: bool = True) -> ssl.SSLContext:
        """For connections that come in. A certificate that a peer shows must be valid if ``verify``."""
        return self._find_context(server=True, verify=verify)

    def client_context(self, *, verify: bool = True) -> ssl.SSLContext:
        """For connections that go out. The peer's certificate is one of the name that is asked for if
        ``verify``.
        """
        return self._find_context(server=False, verify=verify)

    def _find_context(self, *, server: bool, verify: bool) -> ssl.SSLContext:
        files = [self.chain, self.key, *([self.ca_file] if self.ca_file is not None else [])]
        seen = tuple(file.stat().st_mtime_ns for file in files)
        if seen != self._seen:
            self._made.clear()
            self._seen = seen
        if (server, verify) not in self._made:
            self._made[server, verify] = self._make_context(server=server, verify=verify)
        return self._made[server, verify]

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
