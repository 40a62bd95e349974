"""A small MUC service at the other end of the component's link: what a test needs of one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

from hansa import NetworkContext, hookimpl
from hansa_xmpp import Config
from hansa_xmpp.network import XmppNetwork
from hansa_xmpp.proto.render import OutboundStanza, xml_attribute, xml_text
from hansa_xmpp.transport import NotConnected, StanzaListener
from xmpp.scripted_transport import ScriptedTransport
from xmpp.stanzas import GW, element, local_name

SERVICE = "muc.x.example"
ROOM = f"room@{SERVICE}"
_FEATURES = ("urn:xmpp:sid:0", "urn:xmpp:occupant-id:0", "urn:xmpp:mam:2")


class FakeMuc(ScriptedTransport):
    """Rooms of one service. ``occupants`` are full JIDs by room and nick; those of the component get stanzas.
    ``refuses`` is the condition of the error that answers a message; ``deaf`` keeps what is said and
    reflects it in ``catch_up``.
    """

    def __init__(self, features: Iterable[str] = _FEATURES) -> None:
        self.features = tuple(features)
        super().__init__()
        self.deaf = False
        self.refuses = ""
        #: The condition that answers the entry of an address.
        self.shut: dict[str, str] = {}
        self.occupants: dict[str, dict[str, str]] = {}
        #: Nicks of occupants that nobody is told of.
        self.hidden: set[str] = set()
        self.archive: dict[str, list[tuple[str, str]]] = {}
        self.said: list[Element] = []
        self.sent: list[Element] = []
        self.requests: list[Element] = []
        self.held: list[Element] = []
        self._number = 0
        self._news = asyncio.Event()

    async def run(self, listener: StanzaListener) -> None:
        self.listener = listener
        self.up()
        await asyncio.Event().wait()

    def end_connection(self, reason: str) -> None:
        del reason
        self.down()

    def send(self, stanzas: Iterable[OutboundStanza]) -> None:
        if not self.is_up:
            raise NotConnected("down")
        for stanza in stanzas:
            for text in stanza.texts():
                e = element(text)
                self.sent.append(e)
                asyncio.get_running_loop().call_soon(self._take, e)

    def give(self, text: str) -> None:
        """A stanza reaches the component."""
        if self.is_up and self.listener is not None:
            self.listener.on_stanza(element(text))

    def _take(self, e: Element) -> None:
        to, kind = e.get("to", ""), local_name(e.tag)
        if to == GW:
            if self.is_up and self.listener is not None:
                self.listener.on_stanza(e)
        elif kind == "iq":
            self._take_iq(e)
        elif kind == "presence":
            self._take_presence(e)
        elif e.get("type") == "groupchat":
            if self.deaf:
                self.held.append(e)
            else:
                self._take_message(e)

    def _error(self, e: Element, condition: str, words: str = "") -> None:
        text = f"<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>{words}</text>" if words else ""
        inner = f"<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>{text}"
        kind = local_name(e.tag)
        self.give(
            f"<{kind} from='{xml_attribute(e.get('to', ''))}' to='{e.get('from')}' id='{e.get('id', '')}'"
            f" type='error'><error type='cancel'>{inner}</error></{kind}>"
        )

    def _result(self, e: Element, inner: str = "") -> None:
        self.give(
            f"<iq from='{xml_attribute(e.get('to', ''))}' to='{e.get('from')}' id='{e.get('id')}'"
            f" type='result'>{inner}</iq>"
        )

    def _take_iq(self, e: Element) -> None:
        room, child = e.get("to", "").partition("/")[0], e[0]
        if child.tag.endswith("disco#info}query"):
            if room not in self.occupants:
                self._error(e, "item-not-found", "there is no such room")
                return
            features = "".join(f"<feature var='{name}'/>" for name in self.features)
            identity = "<identity category='conference' type='text' name='A room'/>"
            xmlns = "http://jabber.org/protocol/disco#info"
            self._result(e, f"<query xmlns='{xmlns}'>{identity}{features}</query>")
        elif local_name(child.tag) == "ping":
            inside = e.get("from") in self.occupants.get(room, {}).values()
            self._result(e) if inside else self._error(e, "not-acceptable")
        elif child.tag == "{urn:xmpp:mam:2}query":
            self._answer_archive(e, room, child)
        else:
            self.requests.append(e)
            self._error(e, self.refuses) if self.refuses else self._result(e)

    def _answer_archive(self, e: Element, room: str, query: Element) -> None:
        after = query.findtext(".//{*}after")
        names = [name for name, _ in self.archive.get(room, [])]
        start = names.index(after) + 1 if after in names else 0
        page = self.archive.get(room, [])[start : start + 20]
        for name, message in page:
            stamp = "<delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>"
            forwarded = f"<forwarded xmlns='urn:xmpp:forward:0'>{stamp}{message}</forwarded>"
            result = f"<result xmlns='urn:xmpp:mam:2' queryid='{query.get('queryid')}' id='{name}'>{forwarded}</result>"
            self.give(f"<message from='{room}' to='{e.get('from')}'>{result}</message>")
        last = f"<last>{page[-1][0]}</last>" if page else ""
        whole = "complete='true'" if start + 20 >= len(names) else ""
        rsm = f"<set xmlns='http://jabber.org/protocol/rsm'>{last}</set>"
        self._result(e, f"<fin xmlns='urn:xmpp:mam:2' {whole}>{rsm}</fin>")

    def _presence(
        self, room: str, nick: str, to: str, codes: Iterable[int] = (), more: str = "", type_: str = ""
    ) -> None:
        status = "".join(f"<status code='{code}'/>" for code in codes)
        x = f"<x xmlns='http://jabber.org/protocol/muc#user'><item role='participant' affiliation='none'>{more}</item>{status}</x>"
        named = f"<occupant-id xmlns='urn:xmpp:occupant-id:0' id='{self.occupant_id(room, nick)}'/>"
        kind = f" type='{type_}'" if type_ else ""
        self.give(f"<presence from='{room}/{xml_attribute(nick)}' to='{to}'{kind}>{x}{named}</presence>")

    def occupant_id(self, room: str, nick: str) -> str:
        """The id of the occupant with a nick: that of their address."""
        bare = self.occupants.get(room, {}).get(nick, nick).partition("/")[0]
        return f"id-{abs(hash(bare)):x}"

    def _ours(self, room: str) -> list[str]:
        return [
            full
            for full in self.occupants.get(room, {}).values()
            if full.partition("/")[0].endswith(f"@{GW}")
        ]

    def _take_presence(self, e: Element) -> None:
        room, _, nick = e.get("to", "").partition("/")
        full, here = e.get("from", ""), self.occupants.setdefault(room, {})
        if e.get("type") in {"unavailable", "error"}:
            for name in [name for name, one in here.items() if one == full]:
                self.remove(room, name)
            return
        if condition := self.shut.get(full):
            self._error(e, condition)
            return
        if here.get(nick, full) != full:
            self._error(e, "conflict")
            return
        for name in [name for name, one in here.items() if one == full and name != nick]:
            del here[name]
        for name in here:
            if name != nick and name not in self.hidden:
                self._presence(room, name, full)
        here[nick] = full
        for to in self._ours(room):
            self._presence(room, nick, to, (110,) if to == full else ())
        self.give(f"<message from='{room}' to='{full}' type='groupchat'><subject/></message>")

    def remove(self, room: str, nick: str, by: str = "", codes: Iterable[int] = (), reason: str = "") -> None:
        """An occupant leaves, or is removed."""
        more = (f"<actor nick='{by}'/>" if by else "") + (f"<reason>{reason}</reason>" if reason else "")
        full = self.occupants[room].get(nick, "")
        for to in self._ours(room):
            self._presence(room, nick, to, (*codes, 110) if to == full else codes, more, "unavailable")
        self.occupants[room].pop(nick, None)

    def enter(self, room: str, nick: str, full: str) -> None:
        """A person of another server enters."""
        self.occupants.setdefault(room, {})[nick] = full
        for to in self._ours(room):
            self._presence(room, nick, to)

    def say(self, room: str, nick: str, inner: str, id_: str = "") -> str:
        """A person of another server says something; the room's id of it."""
        return self._reflect(room, nick, inner, id_)

    def catch_up(self) -> None:
        """Everything that was kept is reflected."""
        self.deaf, held = False, self.held
        self.held = []
        for e in held:
            self._take_message(e)

    def _take_message(self, e: Element) -> None:
        room, full = e.get("to", ""), e.get("from", "")
        nick = next((n for n, one in self.occupants.get(room, {}).items() if one == full), None)
        if nick is None:
            self._error(e, "not-acceptable", "you are not inside")
            return
        if e.find("{*}body") is None and e.find("{*}composing") is not None:
            return
        if self.refuses:
            self._error(e, self.refuses, "it is refused")
            return
        self.said.append(e)
        inner = "".join(ET.tostring(child, encoding="unicode") for child in e)
        self._reflect(room, nick, inner, e.get("id", ""))

    def _reflect(self, room: str, nick: str, inner: str, id_: str) -> str:
        self._number += 1
        name = f"s{self._number}"
        ids = (
            f"<stanza-id xmlns='urn:xmpp:sid:0' by='{room}' id='{name}'/>"
            if "urn:xmpp:sid:0" in self.features
            else ""
        )
        ids += f"<occupant-id xmlns='urn:xmpp:occupant-id:0' id='{self.occupant_id(room, nick)}'/>"
        head = f"from='{room}/{xml_attribute(nick)}' type='groupchat' id='{xml_attribute(id_)}'"
        self.archive.setdefault(room, []).append(
            (name, f"<message xmlns='jabber:component:accept' {head}>{inner}{ids}</message>")
        )
        for to in self._ours(room):
            self.give(f"<message {head} to='{to}'>{inner}{ids}</message>")
        return name

    def bodies(self, nick: str = "") -> list[str]:
        """What was said by our occupants, or by that of a nick."""
        rooms = [(e, self.occupants.get(e.get("to", ""), {})) for e in self.said]
        return [
            e.findtext("{*}body") or ""
            for e, here in rooms
            if e.find("{*}body") is not None and (not nick or here.get(nick) == e.get("from"))
        ]


def body(text: str) -> str:
    return f"<body>{xml_text(text)}</body>"


def muc_module(muc: FakeMuc) -> ModuleType:
    """The plugin with a link to the small service."""

    @hookimpl
    def open_network(ctx: NetworkContext) -> XmppNetwork:
        return XmppNetwork(ctx, cast("Any", muc))

    name = f"xmpp_beside_{id(muc)}"
    return cast("ModuleType", SimpleNamespace(__name__=name, open_network=open_network, Config=Config, api=1))
