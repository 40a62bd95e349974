"""A throw-away Prosody on loopback with one host and one component, and a small client for its users."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from xml.etree.ElementTree import Element

from slixmpp import ClientXMPP
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream import ET
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from peers.ca import PrivateCA
from peers.process import Process, free_port
from peers.require import require_prosody
from peers.waiting import came, until

HOST, GATEWAY = "x.example", "gw.x.example"
#: Prosody's own rooms.
MUC_SERVICE = "muc.x.example"
_MUC = "http://jabber.org/protocol/muc"
_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas"

_LUA = """
{root}
pidfile = "{folder}/prosody.pid"; data_path = "{folder}/data"; certificates = "{folder}/certs"
log = {{ {{ levels = {{ min = "info" }}, to = "file", filename = "{folder}/prosody.log" }} }}
interfaces = {{ "127.0.0.1" }}; component_interfaces = {{ "127.0.0.1" }}; use_ipv6 = false
c2s_ports = {{ {c2s} }}; component_ports = {{ {component} }}
{s2s}
http_ports = {{}}; https_ports = {{}}
storage = "internal"; authentication = "internal_plain"
modules_enabled = {{ "disco", "roster", "saslauth", "tls", "ping", "posix", "dialback" }}
VirtualHost "{host}"
Component "{muc}" "muc"
  modules_enabled = {{ "muc_mam" }}
  muc_room_locking = false
{components}
"""
_NO_S2S = 's2s_ports = {}; s2s_direct_tls_ports = {}; modules_disabled = { "s2s" }'
_S2S = """
s2s_ports = {{ {port} }}; s2s_direct_tls_ports = {{ {direct} }}
s2s_secure_auth = {secure}; ssl = {{ cafile = "{ca}" }}
unbound = {{
  resolvconf = false; hoststxt = false; forward = {{ "127.0.0.1@{dns}" }};
  options = {{ ["do-not-query-localhost:"] = "no" }}
}}
"""
_COMPONENT = """
Component "{domain}"
  component_secret = "{secret}"
"""


class Prosody:
    """One server. Its components have the ``secret``; ``stop`` and ``start`` keep ports and accounts. With a
    name server's port (``dns``) it speaks to other servers; ``secure``: only to those with valid certificates.
    """

    def __init__(
        self, folder: Path, ca: PrivateCA, *gateways: str, dns: int = 0, secure: bool = True
    ) -> None:
        self.folder = folder
        self.c2s_port, self.component_port = free_port(), free_port()
        self.s2s_port, self.s2s_tls_port = free_port(), free_port()
        self.secret = secrets.token_hex(8)
        self.ca = ca
        (folder / "certs").mkdir(parents=True)
        (folder / "data").mkdir()
        chain, key = ca.issue(f"prosody-{self.c2s_port}", HOST)
        shutil.copy(chain, folder / "certs" / f"{HOST}.crt")
        shutil.copy(key, folder / "certs" / f"{HOST}.key")
        self._config = folder / "prosody.cfg.lua"
        self._config.write_text(
            _LUA.format(
                root="run_as_root = true" if os.geteuid() == 0 else "",
                folder=folder,
                c2s=self.c2s_port,
                component=self.component_port,
                host=HOST,
                muc=MUC_SERVICE,
                s2s=_S2S.format(
                    port=self.s2s_port,
                    direct=self.s2s_tls_port,
                    secure=str(secure).lower(),
                    ca=ca.certificate,
                    dns=dns,
                )
                if dns
                else _NO_S2S,
                components="".join(
                    _COMPONENT.format(domain=domain, secret=self.secret) for domain in gateways or (GATEWAY,)
                ),
            )
        )
        self._process: Process | None = None

    async def start(self) -> Self:
        command = [require_prosody(), "--config", str(self._config), "-F"]
        self._process = Process(command, self.folder)

        async def ready() -> bool:
            assert self._process is not None
            if not self._process.running:
                raise RuntimeError(f"Prosody ended:\n{self._process.tail()}")
            return all(_listens(port) for port in (self.c2s_port, self.component_port))

        await until("Prosody listens", ready)
        return self

    async def stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(process.stop)

    async def user(self, name: str, resource: str = "") -> XmppUser:
        """A new account, connected."""
        arguments = ("--config", str(self._config), "register", name, HOST, "pw")
        child = await asyncio.create_subprocess_exec(
            "prosodyctl", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await child.communicate()
        assert not child.returncode, out
        return await XmppUser(self, f"{name}@{HOST}/{resource or secrets.token_hex(3)}").connect()


def _listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class StanzaError(Exception):
    """An error stanza came back. ``condition`` as in RFC 6120 section 8.3.3, ``text`` for people."""

    def __init__(self, condition: str, kind: str, text: str) -> None:
        super().__init__(f"{condition} ({kind}): {text}")
        self.condition, self.kind, self.text = condition, kind, text


def error_of(stanza: Element) -> StanzaError:
    """The error in a stanza."""
    found = stanza.find("{jabber:client}error")
    assert found is not None
    names = [c.tag.partition("}")[2] for c in found if c.tag.startswith(f"{{{_ERRORS}}}")]
    text = found.findtext(f"{{{_ERRORS}}}text") or ""
    return StanzaError(next(n for n in names if n != "text"), found.get("type", ""), text)


class XmppUser:
    """One connection. Everything that arrives is kept as elements in ``stanzas``, in order."""

    def __init__(self, prosody: Prosody, full: str) -> None:
        self.full = full
        self.bare = full.partition("/")[0]
        self.stanzas: list[Element] = []
        self._prosody = prosody
        self._news = asyncio.Event()
        self._client: ClientXMPP | None = None

    async def connect(self) -> Self:
        """Log in, again where the connection was lost; what was received before stays."""
        client = ClientXMPP(self.full, "pw")
        client.ssl_context.load_verify_locations(self._prosody.ca.certificate)
        client.enable_direct_tls = False
        client.register_plugin("xep_0199")
        for kind in ("message", "presence", "iq"):
            path = MatchXPath(f"{{jabber:client}}{kind}")
            client.register_handler(Callback(f"keep {kind}", path, self._keep))
        client.connect("127.0.0.1", self._prosody.c2s_port)
        await client.wait_until("session_start", 20)
        client.send_presence()
        self._client = client
        return self

    def _keep(self, stanza: Any) -> None:
        self.stanzas.append(stanza.xml)
        self._news.set()
        self._news = asyncio.Event()

    async def until(self, what: str, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until something that arrives makes ``condition`` true."""
        try:
            async with asyncio.timeout(seconds):
                while not came(found := condition()):
                    await self._news.wait()
        except TimeoutError:
            tail = [ET.tostring(e).decode()[:300] for e in self.stanzas[-5:]]
            raise TimeoutError(
                f"{self.full} did not see {what}; the last were:\n" + "\n".join(tail)
            ) from None
        return found

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.disconnect(wait=1.0)

    def cut(self) -> None:
        """The connection ends without a word."""
        if self._client is not None:
            client, self._client = self._client, None
            client.abort()

    def raw(self, text: str) -> None:
        """Send a stanza as it is."""
        assert self._client is not None
        self._client.send_raw(text)

    async def join(self, room: str, nick: str, history: str = "maxstanzas='0'") -> None:
        """Enter, until the subject has come. Raises ``StanzaError``."""
        start = len(self.stanzas)
        x = f"<x xmlns='{_MUC}'><history {history}/></x>"
        self.raw(f"<presence to='{room}/{nick}'>{x}</presence>")

        def done() -> Element | None:
            for e in self.stanzas[start:]:
                if e.get("from", "").partition("/")[0] != room:
                    continue
                if e.tag.endswith("presence") and e.get("type") == "error":
                    return e
                if e.find("{jabber:client}subject") is not None and e.find("{jabber:client}body") is None:
                    return e
            return None

        found = await self.until(f"the subject of {room}", done)
        if found.get("type") == "error":
            raise error_of(found)

    def leave(self, room: str, nick: str) -> None:
        self.raw(f"<presence to='{room}/{nick}' type='unavailable'/>")

    def say(self, room: str, text: str, id_: str = "") -> str:
        """A groupchat message; its id. Whether it was taken is seen in what arrives."""
        name = id_ or f"m{secrets.token_hex(6)}"
        self.raw(f"<message to='{room}' type='groupchat' id='{name}'><body>{text}</body></message>")
        return name

    def set_subject(self, room: str, text: str) -> None:
        self.raw(f"<message to='{room}' type='groupchat' id='s1'><subject>{text}</subject></message>")

    async def verdict(self, name: str, room: str, seconds: float = 30.0) -> StanzaError | None:
        """Returns the error of a sent message, None if it was reflected."""

        def answer() -> Element | None:
            return next((e for e in self.stanzas if e.get("id") == name and self._from(e, room)), None)

        found = await self.until(f"an answer to {name}", answer, seconds)
        return error_of(found) if found.get("type") == "error" else None

    @staticmethod
    def _from(e: Element, room: str) -> bool:
        return e.get("from", "").partition("/")[0] == room

    async def archive(self, room: str, *, page: int, reverse: bool = False) -> list[Element]:
        """The messages of a room's archive as slixmpp's client pages through it, in the order of the pages."""
        assert self._client is not None
        self._client.register_plugin("xep_0313")
        await self._client.plugin["xep_0313"].retrieve(room, rsm={"max": 0})  # the iterator hides errors
        pages = self._client.plugin["xep_0313"].retrieve(
            room, reverse=reverse, iterator=True, rsm={"max": page}
        )
        found = list[Element]()
        async for answer in pages:
            results = answer["mam_fin"]["results"]
            found += [message["mam_result"]["forwarded"]["stanza"].xml for message in results]
        return found

    def messages(self, room: str, *, nick: str | None = None) -> list[Element]:
        """The groupchat messages with a body that came from the room."""
        return [
            e
            for e in self.stanzas
            if e.tag.endswith("message")
            and e.get("type") == "groupchat"
            and self._from(e, room)
            and e.find("{jabber:client}body") is not None
            and (nick is None or e.get("from", "").partition("/")[2] == nick)
        ]

    def bodies(self, room: str, *, nick: str | None = None) -> list[str]:
        return [e.findtext("{jabber:client}body") or "" for e in self.messages(room, nick=nick)]

    def occupants(self, room: str) -> set[str]:
        """The nicks that are in the room, as presences told."""
        here: set[str] = set()
        for e in self.stanzas:
            if e.tag.endswith("presence") and self._from(e, room):
                nick = e.get("from", "").partition("/")[2]
                if e.get("type") is None:
                    here.add(nick)
                elif e.get("type") == "unavailable":
                    here.discard(nick)
        return here

    async def ask(self, text: str) -> Element:
        """Sends an IQ as it is; its answer, which may be an error."""
        id_ = ET.fromstring(text).get("id", "")
        self.raw(text)

        def answer() -> Element | None:
            return next((e for e in self.stanzas if e.tag.endswith("iq") and e.get("id") == id_), None)

        found: Element = await self.until(f"an answer to {text[:200]}", answer)
        return found

    async def ping(self, to: str) -> StanzaError | None:
        """XEP-0199; None when it was answered."""
        assert self._client is not None
        try:
            await self._client.plugin["xep_0199"].send_ping(to, timeout=20)
        except IqError as error:
            return StanzaError(error.condition, error.etype, error.text)
        except IqTimeout:
            return StanzaError("remote-server-timeout", "wait", "no answer")
        return None
