"""Hostile stanzas (RFC 6120, XEP-0045, XEP-0114): over the raw link of a rogue server, and what a real server
passes on.
"""

from __future__ import annotations

import secrets
from typing import Any

from e2e.hostile_suite import BROKEN, DEN, ROGUE, ROMEO, Case, HostileSuite, Run, breaks, sent, stanza
from e2e.three_servers import MUC
from peers.prosody import GATEWAY

_X = "<x xmlns='http://jabber.org/protocol/muc'/>"
_STRANGER = "mercutio@verona.example/ID"
_BODY = "<body>x</body>"


def _message(
    inner: str, *, sender: str = ROMEO, to: str = DEN, kind: str = "groupchat", id_: str = "ID"
) -> Run:
    return stanza(f"<message from='{sender}' to='{to}' type='{kind}' id='{id_}'>{inner}</message>")


def _presence(nick: str, inner: str = _X, *, sender: str = _STRANGER, kind: str = "") -> Run:
    type_ = f" type='{kind}'" if kind else ""
    return stanza(f"<presence from='{sender}' to='{DEN}{nick}'{type_} id='ID'>{inner}</presence>")


def _iq(inner: str, *, to: str = DEN, kind: str = "get", sender: str = ROMEO, id_: str = "id='ID'") -> Run:
    return stanza(f"<iq from='{sender}' to='{to}' type='{kind}' {id_}>{inner}</iq>")


def _history(asked: str) -> Run:
    """Come in, be given at most what the configuration allows, the subject last; leave."""

    async def run(siege: HostileSuite) -> str:
        link, name = siege.link, f"paris@verona.example/{secrets.token_hex(4)}"
        start = len(link.stanzas)
        x = f"<x xmlns='http://jabber.org/protocol/muc'><history {asked}/></x>"
        link.send(f"<presence from='{name}' to='{DEN}/Paris' id='h'>{x}</presence>")

        def given() -> list[Any]:
            mine = [e for e in link.stanzas[start:] if e.get("to") == name]
            subject = "{jabber:component:accept}subject"
            return mine if any(e.find(subject) is not None for e in mine) else []

        mine = await link.until("the subject", given, 20)
        bodies = [e for e in mine if e.find("{urn:xmpp:delay}delay") is not None]
        link.send(f"<presence from='{name}' to='{DEN}/Paris' type='unavailable'/>")
        await link.until(
            "the leave",
            lambda: any(e.get("to") == name and e.get("type") == "unavailable" for e in link.stanzas[start:]),
            20,
        )
        return "up to 1,000" if len(bodies) <= 1000 else f"{len(bodies)} messages"

    return run


async def _flood(siege: HostileSuite) -> str:
    """300 presences in one write: what does not fit is refused, and the room goes on."""
    link, name = siege.link, f"tybalt@verona.example/{secrets.token_hex(4)}"
    start = len(link.stanzas)
    join = f"<presence from='{name}' to='{DEN}/Tybalt' id='f'>{_X}</presence>"
    leave = f"<presence from='{name}' to='{DEN}/Tybalt' type='unavailable'/>"
    link.send(join * 300 + leave)

    def mine(kind: str) -> list[Any]:
        return [e for e in link.stanzas[start:] if e.get("to") == name and e.get("type") == kind]

    await link.until("the end of the flood", lambda: mine("unavailable"), 30)
    found = {c.tag.partition("}")[2] for e in mine("error") for c in e.iter() if "xmpp-stanzas" in c.tag}
    return " ".join(sorted(found - {"text"}))


_NO_STANZA = "dropped unsupported-stanza-type"
_ADDRESSING, _SPOOFED = "dropped improper-addressing", "dropped invalid-from"
_MALFORMED, _BAD_REQUEST = "modify jid-malformed", "modify bad-request"
_NOT_IN, _NOT_FOUND = "modify not-acceptable", "cancel item-not-found"
_POLICY, _UNAVAILABLE = "modify policy-violation", "cancel service-unavailable"
_UNKNOWN, _FORM = "<q xmlns='urn:nobody:knows'/>", "http://jabber.org/protocol/muc#owner"
_NAME = (
    f"<query xmlns='{_FORM}'><x xmlns='jabber:x:data' type='submit'><field var='muc#roomconfig_roomname'>"
    f"<value>{'n' * 2000}</value></field></x></query>"
)

ADDRESSES = [
    Case(
        "stanza: no from",
        stanza(f"<message to='{DEN}' type='groupchat' id='ID'>{_BODY}</message>"),
        _ADDRESSING,
    ),
    Case("stanza: empty from", _message(_BODY, sender=""), _ADDRESSING),
    Case("stanza: from that is no JID", _message(_BODY, sender="@@"), _ADDRESSING),
    Case("stanza: from of 3,100 bytes", _message(_BODY, sender=f"{'a' * 3100}@b.example/c"), _ADDRESSING),
    Case("stanza: from with a space", _message(_BODY, sender="a b@verona.example/c"), _ADDRESSING),
    Case("stanza: from our own domain", _message(_BODY, sender=f"x@{ROGUE}"), _SPOOFED),
    Case("stanza: from the service", _message(_BODY, sender=ROGUE), _SPOOFED),
    Case("stanza: from the room", _message(_BODY, sender=DEN), _SPOOFED),
    Case("stanza: from an occupant's address in the room", _message(_BODY, sender=f"{DEN}/Romeo"), _SPOOFED),
    Case(
        "stanza: no to",
        stanza(f"<message from='{ROMEO}' type='groupchat' id='ID'>{_BODY}</message>"),
        _ADDRESSING,
    ),
    Case("stanza: to another domain", _message(_BODY, to="den@elsewhere.example"), "dropped host-unknown"),
    Case("stanza: to no JID", _message(_BODY, to=f"a b@{ROGUE}"), _MALFORMED),
    Case("stanza: to a room that is none", _message(_BODY, to=f"nowhere@{ROGUE}"), _NOT_FOUND),
    Case(
        "stanza: of the namespace of clients, which some servers use",
        stanza(f"<presence xmlns='jabber:client' from='{_STRANGER}' to='{DEN}' id='ID'>{_X}</presence>"),
        _MALFORMED,
    ),
    Case(
        "stanza: of no namespace",
        stanza(f"<iq xmlns='' from='{ROMEO}' to='{DEN}' type='get' id='ID'>{_UNKNOWN}</iq>"),
        _NO_STANZA,
    ),
    Case(
        "stanza: of a kind nobody knows",
        stanza(f"<letter from='{ROMEO}' to='{DEN}' id='ID'/>"),
        _NO_STANZA,
    ),
    Case("stanza: a second handshake", stanza("<handshake/>"), _NO_STANZA),
]

QUERIES = [
    Case("iq: unknown to the service", _iq(_UNKNOWN, to=ROGUE), _UNAVAILABLE),
    Case("iq: unknown to the room", _iq(_UNKNOWN), _UNAVAILABLE),
    Case("iq: unknown to an occupant", _iq(_UNKNOWN, to=f"{DEN}/Romeo"), _UNAVAILABLE),
    Case("iq: set of what is unknown", _iq(_UNKNOWN, kind="set"), _UNAVAILABLE),
    Case("iq: to a room that is none", _iq(_UNKNOWN, to=f"nowhere@{ROGUE}"), _NOT_FOUND),
    Case("iq: to a nick that nobody has", _iq(_UNKNOWN, to=f"{DEN}/Nobody"), _NOT_FOUND),
    Case("iq: to an occupant from outside", _iq(_UNKNOWN, to=f"{DEN}/Romeo", sender=_STRANGER), _NOT_IN),
    Case("iq: no id", _iq(_UNKNOWN, to=ROGUE, sender=_STRANGER, id_=""), _BAD_REQUEST),
    Case("iq: an id of 1,000 bytes", _iq(_UNKNOWN, sender=_STRANGER, id_=f"id='{'i' * 1000}'"), _BAD_REQUEST),
    Case("iq: a type nobody knows", _iq(_UNKNOWN, kind="fetch"), _BAD_REQUEST),
    Case("iq: no type", stanza(f"<iq from='{ROMEO}' to='{DEN}' id='ID'>{_UNKNOWN}</iq>"), _BAD_REQUEST),
    Case("iq: no child", _iq(""), _BAD_REQUEST),
    Case("iq: two children", _iq(_UNKNOWN * 2), _BAD_REQUEST),
    Case("iq: a result that nobody waits for", _iq("", kind="result"), "dropped unasked"),
    Case("iq: an error that nobody waits for", _iq("", kind="error", to=ROGUE), "dropped unasked"),
    Case(
        "iq: the room's form from outside",
        _iq(f"<query xmlns='{_FORM}'/>", sender=_STRANGER),
        "auth forbidden",
    ),
    Case(
        "iq: a form that is none",
        _iq(f"<query xmlns='{_FORM}'><destroy/></query>", kind="set"),
        "auth forbidden",
    ),
    Case("iq: a name of 2,000 bytes", _iq(_NAME, kind="set"), "auth forbidden"),
    Case(
        "iq: a node that is none",
        _iq("<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>"),
        _NOT_FOUND,
    ),
    Case("iq: over 24 levels", _iq("<a xmlns='u'>" + "<a>" * 30 + "</a>" * 30 + "</a>"), _POLICY),
]


_QUOTES = "&quot;" * 20_000
MESSAGES = [
    Case("message: as it should be", _message(_BODY), "groupchat"),
    Case("message: from outside of the room", _message(_BODY, sender=_STRANGER), _NOT_IN),
    Case(
        "message: from another resource of an occupant",
        _message(_BODY, sender="romeo@verona.example/ID"),
        _NOT_IN,
    ),
    Case("message: to the room as if to an occupant", _message(_BODY, to=f"{DEN}/Romeo"), _BAD_REQUEST),
    Case("message: private", _message(_BODY, to=f"{DEN}/Romeo", kind="chat"), "chat"),
    Case(
        "message: private, from outside",
        _message(_BODY, sender=_STRANGER, to=f"{DEN}/Romeo", kind="chat"),
        _NOT_IN,
    ),
    Case("message: to the service", _message(_BODY, to=ROGUE, kind="chat"), _UNAVAILABLE),
    Case("message: a type nobody knows", _message(_BODY, kind="shout"), "cancel feature-not-implemented"),
    Case("message: a body of 40,000 bytes", _message(f"<body>{'x' * 40_000}</body>"), _POLICY),
    Case("message: a stanza of 300 KiB", _message(f"<body>{'x' * 300_000}</body>"), _POLICY),
    Case("message: 1,100 elements", _message(_BODY + "<a/>" * 1100), _POLICY),
    Case("message: 3,000 levels", _message(_BODY + "<a>" * 3000 + "</a>" * 3000), _POLICY),
    Case(
        "message: an attribute of 300 KiB",
        stanza(f"<message from='{ROMEO}' to='{DEN}' id='ID' x='{'x' * 300_000}' type='groupchat'/>"),
        _POLICY,
    ),
    Case(
        "message: an id of 300 bytes",
        _message(_BODY, sender="romeo@verona.example/ID", id_="i" * 300),
        _BAD_REQUEST,
    ),
    Case(
        "message: an origin-id of 300 bytes",
        _message(_BODY + f"<origin-id xmlns='urn:xmpp:sid:0' id='{'o' * 300}'/>"),
        _BAD_REQUEST,
    ),
    Case("message: a subject of 40,000 bytes", _message(f"<subject>{'s' * 40_000}</subject>"), _POLICY),
    Case(
        "message: a subject that is too large once it is escaped",
        _message("<subject>" + "&#x1;".replace("&#x1;", "\\\\") * 16_380 + "</subject>"),
        _POLICY,
    ),
    Case("message: an empty body", _message("<body/>"), "dropped no words"),
    Case(
        "message: an invite of nobody",
        _message("<x xmlns='http://jabber.org/protocol/muc#user'><invite to='@@'/></x>", kind="normal"),
        "cancel feature-not-implemented",
    ),
    Case("message: an error from outside", _message("", sender=_STRANGER, kind="error"), "dropped error"),
]

PRESENCES = [
    Case("presence: no nick", _presence(""), _MALFORMED),
    Case("presence: a nick of blanks", _presence("/  "), _MALFORMED),
    Case("presence: a nick written right to left by force", _presence("/\u202eoemoR"), _MALFORMED),
    Case("presence: a nick with a control character", _presence("/a\x85b"), _MALFORMED),
    Case("presence: a nick outside of Unicode 3.2", _presence("/\U0001f9db"), _MALFORMED),
    Case("presence: a nick of 1,100 bytes", _presence("/" + "n" * 1100), _MALFORMED),
    Case("presence: somebody else's nick", _presence("/Romeo"), "cancel conflict"),
    Case("presence: a Matrix person's nick", _presence("/mallory"), "cancel conflict"),
    Case("presence: from outside, not to come in", _presence("/Mercutio", ""), _NOT_IN),
    Case("presence: from a bare JID", _presence("/Mercutio", sender="mercutio@verona.example"), _BAD_REQUEST),
    Case("presence: a subscription", _presence("", "", kind="subscribe"), "dropped presence type"),
    Case("presence: a type nobody knows", _presence("/Mercutio", "", kind="asleep"), "dropped presence type"),
    Case(
        "presence: a leave from outside", _presence("/Mercutio", "", kind="unavailable"), "dropped not here"
    ),
    Case("presence: 10,000 stanzas of history", _history("maxstanzas='10000'"), "up to 1,000"),
    Case(
        "presence: history of numbers that are none",
        _history("maxstanzas='-1' maxchars='x' seconds='1e9'"),
        "up to 1,000",
    ),
    Case("presence: history since no time", _history("since='yesterday'"), "up to 1,000"),
    Case("presence: history since the year 1", _history("since='0001-01-01T00:00:00+23:59'"), "up to 1,000"),
    Case("presence: 300 at once", _flood, "resource-constraint"),
]

_STREAMS = {
    "doctype": "<!DOCTYPE x [<!ENTITY a 'b'>]>",
    "instruction": "<?x y?>",
    "comment": "<!-- x -->",
    "entity": f"<message from='{ROMEO}' to='{DEN}'><body>&lol;</body></message>",
    "garbage": "</nobody></opened>",
    "nul": b"<message><body>\0</body></message>",
    "utf8": b"<message><body>\xff\xfe</body></message>",
    "endless": "<message x='" + "x" * 5_000_000,
}
_CONDITIONS = {"instruction": "restricted-xml", "comment": "restricted-xml", "endless": "policy-violation"}
STREAMS = [
    Case(
        f"stream: {name}",
        breaks(domain, _STREAMS[name]),
        f"stream {_CONDITIONS.get(name, 'not-well-formed')}",
    )
    for name, domain in BROKEN.items()
]


def _by_juliet(kind: str, to: str, inner: str, type_: str) -> Run:
    return sent(f"<{kind} to='{to}' type='{type_}' id='ID'>{inner}</{kind}>")


def _by_nurse(kind: str, to: str, inner: str, type_: str = "") -> Run:
    given = f" type='{type_}'" if type_ else ""
    return sent(f"<{kind} to='{to}'{given} id='ID'>{inner}</{kind}>", by="nurse")


REAL = [
    Case("real server: iq unknown to the service", _by_juliet("iq", GATEWAY, _UNKNOWN, "get"), _UNAVAILABLE),
    Case("real server: iq unknown to the room", _by_juliet("iq", MUC, _UNKNOWN, "set"), _UNAVAILABLE),
    Case(
        "real server: iq to a room that is none",
        _by_juliet("iq", f"nowhere@{GATEWAY}", _UNKNOWN, "get"),
        _NOT_FOUND,
    ),
    Case(
        "real server: over 24 levels",
        _by_juliet("iq", MUC, "<a xmlns='u'>" + "<a>" * 30 + "</a>" * 30 + "</a>", "get"),
        _POLICY,
    ),
    Case(
        "real server: message to a room that is none",
        _by_juliet("message", f"nowhere@{GATEWAY}", _BODY, "groupchat"),
        _NOT_FOUND,
    ),
    Case(
        "real server: private message",
        _by_juliet("message", f"{MUC}/friend", _BODY, "chat"),
        "auth forbidden",
    ),
    Case(
        "real server: a subject of 40,000 bytes",
        _by_juliet("message", MUC, f"<subject>{'s' * 40_000}</subject>", "groupchat"),
        _POLICY,
    ),
    Case(
        "real server: a body of 40,000 bytes",
        _by_juliet("message", MUC, f"<body>{'s' * 40_000}</body>", "groupchat"),
        _POLICY,
    ),
    Case("real server: from outside of the room", _by_nurse("message", MUC, _BODY, "groupchat"), _NOT_IN),
    Case(
        "real server: private message from outside",
        _by_nurse("message", f"{MUC}/Juliet", _BODY, "chat"),
        _NOT_IN,
    ),
    Case("real server: no nick", _by_nurse("presence", MUC, _X), _MALFORMED),
    Case("real server: somebody else's nick", _by_nurse("presence", f"{MUC}/Juliet", _X), "cancel conflict"),
    Case("real server: not to come in", _by_nurse("presence", f"{MUC}/Nurse", ""), _NOT_IN),
]

CASES = [*ADDRESSES, *QUERIES, *MESSAGES, *PRESENCES, *STREAMS, *REAL]

#: What is as it should be, to be mutated.
VALID = [
    text.encode()
    for text in (
        f"<message from='{ROMEO}' to='{DEN}' type='groupchat' id='v1'><body>words &amp; more</body></message>",
        f"<message from='{ROMEO}' to='{DEN}/Romeo' type='chat' id='v2'><body>words</body></message>",
        f"<message from='{ROMEO}' to='{DEN}' type='groupchat'><subject>a subject</subject></message>",
        (
            f"<presence from='benvolio@verona.example/b' to='{DEN}/Benvolio' id='v3'>"
            "<x xmlns='http://jabber.org/protocol/muc'>"
            "<history maxstanzas='5' seconds='10' since='2026-01-01T00:00:00Z'/></x></presence>"
        ),
        f"<presence from='benvolio@verona.example/b' to='{DEN}/Benvolio' type='unavailable'/>",
        (
            f"<iq from='{ROMEO}' to='{DEN}' type='get' id='v4'>"
            "<query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
        ),
        f"<iq from='{ROMEO}' to='{DEN}/Romeo' type='get' id='v5'><ping xmlns='urn:xmpp:ping'/></iq>",
        (
            f"<iq from='{ROMEO}' to='{DEN}' type='set' id='v6'><query xmlns='{_FORM}'>"
            "<x xmlns='jabber:x:data' type='submit'><field var='muc#roomconfig_roomname'><value>n</value></field></x>"
            "</query></iq>"
        ),
        (
            f"<message from='{ROMEO}' to='{DEN}'><x xmlns='http://jabber.org/protocol/muc#user'>"
            "<invite to='nurse@verona.example'><reason>r</reason></invite></x></message>"
        ),
    )
]
