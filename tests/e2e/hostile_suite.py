"""A Hansa under siege: hostile peers in one room each, honest ones in another, and what became of an attack."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from e2e.three_servers import LOBBY, MUC, wait_linked, xmpp_config
from hansa_matrix.proto.hashing import event_id
from peers.ca import PrivateCA
from peers.fake_homeserver import V1, Answer, FakeHomeserver, plain_http
from peers.hansa import Hansa
from peers.prosody import Prosody, XmppUser, error_of
from peers.raw_xmpp_server import RawXmppLink, RawXmppServer
from peers.waiting import until
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

ROGUE = "rogue.example"
DEN = f"den@{ROGUE}"
ROMEO = "romeo@verona.example/balcony"
#: Components whose streams are broken, one per way to do it, as each reconnects ever more slowly.
BROKEN = {
    name: f"{name}.example"
    for name in ("doctype", "instruction", "comment", "entity", "garbage", "nul", "utf8", "endless")
}
_ROOMS = '\n[[rooms]]\nlinks = ["matrix:#den", "rogue:den"]\n\n[[rooms]]\nlinks = ["matrix:#pit"]\n'
_SAMPLE = re.compile(r"^hansa_(\w+?)(?:_total)?(?:\{(.*)\})? ([0-9.e+]+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Run = Callable[["HostileSuite"], Awaitable[str]]


@dataclass(frozen=True)
class Case:
    """``run`` attacks and says what came of it, which has to be ``expected``."""

    name: str
    run: Run
    expected: str


class HostileSuite:
    """Everybody who takes part. ``mallory`` is in the den and the pit, ``friend`` and ``juliet`` in the lobby."""

    def __init__(self, folder: Path, ca: PrivateCA) -> None:
        self.folder, self.ca = folder, ca
        self.mallory, self.friend = FakeHomeserver(ca), FakeHomeserver(ca)
        self.rogue = RawXmppServer()
        self.prosody = Prosody(folder / "prosody", ca)
        self.spoken = 0
        self.cleanup = AsyncExitStack()

    async def start(self) -> HostileSuite:
        """Everybody is up and in their rooms; what is to be undone is in ``cleanup``."""
        undo = self.cleanup.push_async_callback
        for peer in (self.mallory, self.friend, self.rogue, self.prosody):
            undo(peer.stop)
            await peer.start()
        self.hansa = Hansa(self.folder / "hansa", self.ca, self._more())
        undo(self.hansa.stop)
        await self.hansa.start()
        self._admin = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self.hansa.folder / "hansa.sock"))
        )
        undo(self._admin.close)
        await wait_linked(self.hansa, rooms=2)
        self.den = await self.mallory.join(self.name, f"#den:{self.name}", "mallory")
        self.pit = await self.mallory.join(self.name, f"#pit:{self.name}", "mallory")
        self.lobby = await self.friend.join(self.name, f"#lobby:{self.name}", "friend")
        self.juliet = await self.prosody.user("juliet")
        undo(self.juliet.close)
        self.nurse = await self.prosody.user("nurse")
        undo(self.nurse.close)
        _keep_iqs(self.juliet)
        await self.juliet.join(MUC, "Juliet")
        self.link.send(_join(ROMEO, "Romeo"))
        await self.link.until("let Romeo in", lambda: self._subject(ROMEO))
        return self

    def _more(self) -> str:
        tables = [xmpp_config(self.prosody), LOBBY, _ROOMS]
        for number, domain in enumerate((ROGUE, *BROKEN.values())):
            name = "rogue" if not number else f"broken{number}"
            tables.append(
                f'\n[networks.{name}]\nplugin = "xmpp"\ncomponent = "{domain}"\nport = {self.rogue.port}\n'
                f'secret = "{self.rogue.secret}"\n'
            )
        return "".join(tables)

    @property
    def name(self) -> str:
        return self.hansa.name

    @property
    def link(self) -> RawXmppLink:
        return self.rogue.links[ROGUE]

    def _subject(self, to: str) -> bool:
        tag = "{jabber:component:accept}subject"
        return any(e.get("to") == to and e.find(tag) is not None for e in self.link.stanzas)

    async def metrics(self) -> dict[str, float]:
        """Counters by their name and the values of their labels: ``xmpp_dropped rogue invalid-from``."""
        async with self._admin.get("http://localhost/metrics") as answer:
            text = await answer.text()
        return {
            " ".join([name, *(value for _, value in sorted(_LABEL.findall(labels)))]): float(number)
            for name, labels, number in _SAMPLE.findall(text)
        }

    async def risen(self, before: Mapping[str, float], *families: str) -> list[str]:
        """The counters of some families that have risen since."""
        after = await self.metrics()
        return [k for k, v in sorted(after.items()) if k.startswith(families) and v > before.get(k, 0.0)]

    def log_size(self) -> int:
        """How many bytes the log has."""
        return (self.hansa.folder / "output.log").stat().st_size

    def log_since(self, mark: int) -> str:
        """The log after so many bytes."""
        with (self.hansa.folder / "output.log").open("rb") as log:
            log.seek(mark)
            return log.read().decode(errors="replace")

    def resident_kib(self) -> int:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.hansa.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    async def talk(self) -> None:
        """One message each way in the lobby, where nobody is hostile."""
        self.spoken += 1
        there, back = f"to the MUC {self.spoken}", f"to Matrix {self.spoken}"
        answer = await self.friend.say(self.name, self.lobby, there)
        assert answer.status == 200, answer
        await self.juliet.until(there, lambda: there in self.juliet.bodies(MUC), 10)
        refused = await self.juliet.verdict(self.juliet.say(MUC, back), MUC)
        assert refused is None, refused

        async def heard() -> bool:
            return back in self.friend.heard

        await until(back, heard, 10)


def _keep_iqs(user: XmppUser) -> None:
    client = user._client  # one of the test's own peers
    assert client is not None
    client.register_handler(Callback("keep iq", MatchXPath("{jabber:client}iq"), user._keep))


def _join(sender: str, nick: str, inner: str = "<history maxstanzas='0'/>", id_: str = "") -> str:
    x = f"<x xmlns='http://jabber.org/protocol/muc'>{inner}</x>"
    return f"<presence from='{sender}' to='{DEN}/{nick}' id='{id_}'>{x}</presence>"


# ---- requests
# ------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    return quote(text, safe="")


def asked(method: str, target: str | Callable[[HostileSuite], str], body: Any = None, **signing: Any) -> Run:
    """A signed request below the federation API. Target, body and signing may be functions of the siege."""

    async def run(siege: HostileSuite) -> str:
        options = {k: _of(v, siege) for k, v in signing.items()}
        answer = await siege.mallory.request(
            method, siege.name, "/_matrix/federation" + _of(target, siege), _of(body, siege), **options
        )
        return shown(answer)

    return run


def shown(answer: Answer) -> str:
    """The status and, where it tells something, the rest."""
    if answer.status != 200:
        assert isinstance(answer.body.get("error"), str), answer.body
    return str(answer)


def _of(value: Any, siege: HostileSuite) -> Any:
    return value(siege) if callable(value) else value


def raw_http(data: bytes | Callable[[HostileSuite], bytes]) -> Run:
    """Bytes over TLS, and the status and error code of what is answered."""

    async def run(siege: HostileSuite) -> str:
        got = await plain_http(siege.hansa.port, _of(data, siege), siege.mallory.trust)
        return status_of(got)

    return run


def status_of(got: bytes) -> str:
    """``400 M_UNKNOWN`` of raw bytes; ``closed`` where nothing came."""
    head, _, body = got.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1\.[01] (\d+)", head)
    if found is None:
        return "closed"
    code = re.search(rb'"errcode":"(\w+)"', body)
    assert b"application/json" in head, head
    return (found[1] + b" " + (code[1] if code else b"")).decode().strip()


# ---- PDUs
# ----------------------------------------------------------------------------------------------------


def pdu(make: Callable[[HostileSuite], Any]) -> Run:
    """Push one event, and wait for what becomes of it."""

    async def run(siege: HostileSuite) -> str:
        raw = make(siege)
        before, mark = await siege.metrics(), siege.log_size()
        answer = await siege.mallory.send(siege.name, raw)
        if answer.status != 200:
            return str(answer)
        return await _judged(siege, raw, before, mark)

    return run


async def _judged(siege: HostileSuite, raw: Any, before: Mapping[str, float], mark: int) -> str:
    async def fate() -> str:
        risen = await siege.risen(before, "matrix_pdus")
        if risen:
            status = risen[0].rpartition(" ")[2]
            found = re.findall(
                r"(?:dropped|rejected|soft_failed|refused)\b[^\n]*?: ([^\n]+)", siege.log_since(mark)
            )
            return f"{status}: {_plain(found[-1], siege)}" if found else status
        if isinstance(raw, dict) and "content" in raw:
            name = event_id(
                {k: v for k, v in raw.items() if k not in {"event_id", "unsigned"}}, siege.den.version
            )
            shown = await siege.mallory.request("GET", siege.name, f"{V1}/event/{escaped(name)}")
            if shown.status == 200 and not await siege.risen(before, "matrix_pdus"):
                kept = shown.body["pdus"][0]
                extra = sorted(set(kept) & {"event_id", "unsigned"})
                return f"accepted{'' if kept['content'] else ' redacted'}{extra or ''}"
        return ""

    return await until("the event's fate", fate, 10)


def _plain(text: str, siege: HostileSuite) -> str:
    """A log line without what differs from run to run."""
    for word, name in (
        (siege.mallory.name, "MALLORY"),
        (siege.friend.name, "FRIEND"),
        (siege.name, "HANSA"),
        (siege.den.room_id, "DEN"),
    ):
        text = text.replace(word, name)
    text = re.sub(r"\$[A-Za-z0-9_-]{43}", "$ID", text)
    return re.sub(r"has \d{5,} bytes", "has N bytes", text)


# ---- stanzas
# -------------------------------------------------------------------------------------------------


def stanza(text: str) -> Run:
    """One stanza from the rogue server; ``ID`` in it becomes an id. An answer is told by it, silence by what
    was counted.
    """

    async def run(siege: HostileSuite) -> str:
        name, link = f"r{secrets.token_hex(6)}", siege.link
        before, start = await siege.metrics(), len(link.stanzas)
        link.send(text.replace("ID", name))

        async def fate() -> str:
            for e in link.stanzas[start:]:
                if name in {e.get("id"), e.get("to", "").partition("/")[2]}:
                    return told(e)
            risen = await siege.risen(before, "xmpp_dropped", "xmpp_ignored")
            return " ".join(["dropped", *risen[0].split(" ")[2:]]) if risen else ""

        return await until("an answer or a count", fate, 10)

    return run


def told(e: Any) -> str:
    """An answer in a few words."""
    if e.get("type") == "error":
        for one in e.iter():
            one.tag = one.tag.replace("{jabber:component:accept}", "{jabber:client}")
        found = error_of(e)
        return f"{found.kind} {found.condition}"
    return str(e.get("type") or "available")


def sent(text: str, *, by: str = "juliet") -> Run:
    """One stanza of Juliet's or the nurse's, through the real server."""

    async def run(siege: HostileSuite) -> str:
        name, user = f"j{secrets.token_hex(6)}", siege.juliet if by == "juliet" else siege.nurse
        user.raw(text.replace("ID", name))

        def answer() -> Any:
            return next((e for e in user.stanzas if e.get("id") == name), None)

        return told(await user.until("an answer", answer, 10))

    return run


def breaks(domain: str, data: str | bytes) -> Run:
    """Returns a case that ends a component's stream: the stream error, and the reconnect of the component."""

    async def run(siege: HostileSuite) -> str:
        def link() -> RawXmppLink | None:
            return siege.rogue.links.get(domain)

        async def ready() -> bool:
            found = link()
            return found is not None and found.up

        await until(f"{domain} is connected", ready, 40)
        found = link()
        assert found is not None
        lives = found.connects
        found.send(data)
        await found.until("the stream's end", lambda: not found.up or found.connects > lives, 10)
        return f"stream {found.condition}"

    return run
