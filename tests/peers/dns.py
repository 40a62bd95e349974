"""A name server on loopback for a few names: addresses and services, and nothing else exists."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping

_A, _SRV, _NO_SUCH_NAME = 1, 33, 3


class NameServer(asyncio.DatagramProtocol):
    """``services`` maps a service and domain, as ``_xmpp-server._tcp.x.example``, to a port of 127.0.0.1."""

    def __init__(self, services: Mapping[str, int]) -> None:
        self.services = dict(services)
        self.asked: list[str] = []
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> NameServer:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]
        return self

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answers one question."""
        at, labels = 12, list[str]()
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode().lower())
            at += 1 + data[at]
        question, (kind,) = data[12 : at + 5], struct.unpack("!H", data[at + 1 : at + 3])
        name = ".".join(labels)
        self.asked.append(name)
        domains = {service.partition("._tcp.")[2] for service in self.services}
        found = b""
        if kind == _A and name in domains:
            found = bytes((127, 0, 0, 1))
        elif kind == _SRV and name in self.services:
            target = b"".join(bytes((len(one),)) + one.encode() for one in name.split(".")[2:]) + b"\0"
            found = struct.pack("!HHH", 0, 0, self.services[name]) + target
        known = name in domains or name in self.services
        code = 0x8580 | (0 if known else _NO_SUCH_NAME)
        answer = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 1, len(found)) + found if found else b""
        head = data[:2] + struct.pack("!HHHHH", code, 1, int(bool(found)), 0, 0)
        assert self._transport is not None
        self._transport.sendto(head + question + answer, addr)
