"""The worst for policies: a Hansa that has them, with lists as long as lists get, and texts that take the longest
to read.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from pathlib import Path

import orjson
from hostile.cases import CLIENT, Case, Run, transaction
from hostile.inputs import KIB, VALUES
from hostile.scene import COMPONENT, MUC, V1, Scene, part
from hostile.stanzas import STANZAS, flood
from peers.ca import PrivateCA

#: Words and globs in a list.
LISTED = 10_000
#: Bytes of text that one event has room for.
EVENT = 60 * KIB

_LATIN = "abcdefghijklmnopqrstuvwxyz"
_CYRILLIC = "".join(map(chr, range(0x430, 0x450)))
_HAN = "".join(map(chr, range(0x4E00, 0x4F00)))


def words() -> list[str]:
    """Names and phrases of several scripts; always the same."""
    chance, found = random.Random(14), dict[str, None]()
    while len(found) < LISTED:
        letters, most = chance.choice([(_LATIN, 12)] * 17 + [(_CYRILLIC, 10)] * 2 + [(_HAN, 4)])
        word = "".join(chance.choices(letters, k=chance.randint(3, most)))
        if chance.random() < 0.1:
            word += " " + "".join(chance.choices(letters, k=5))
        found[f"q{word}" if letters is _LATIN else word] = None
    return list(found)


def servers() -> list[str]:
    """Globs of servers of several forms."""
    return [("evil{}.test", "*.evil{}.test", "*bad{}*", "m?l{}.*")[n % 4].format(n) for n in range(LISTED)]


def users() -> list[str]:
    """Globs of people of several forms."""
    forms = ("@mal{}:x.test", "@*:evil{}.test", "*bad{}*", "@m?l{}:*")
    return [forms[n % 4].format(n) for n in range(LISTED)]


class JudgedScene(Scene):
    """With policies on."""

    def __init__(self, folder: Path, ca: PrivateCA) -> None:
        super().__init__(folder, ca)
        lists = {"words": words(), "deny_servers": servers(), "deny_users": users()}
        table = "".join(f"{name} = {orjson.dumps(value).decode()}\n" for name, value in lists.items())
        with self.hansa.config.open("a") as file:
            file.write(f'\n[policies.guard]\nplugin = "governance"\n{table}')
            file.write("rate = { events = 1000000, seconds = 1 }\n")


def _of(unit: str) -> Callable[[int], str]:
    return lambda size: unit * (size // len(unit.encode()))


def _begun(sign: str) -> Callable[[int], str]:
    """Beginnings of words that are listed."""

    def made(size: int) -> str:
        each = [word[:3] for word in words() if word.isascii()]
        return sign.join(each * (size // 4 // len(each) + 1))[:size]

    return made


#: ``name -> (bytes) -> text``: none holds a word that is listed.
TEXTS: dict[str, Callable[[int], str]] = {
    "Cyrillic": _of("\u0444\u044b\u0432 "),
    "Han": _of("\u4e01\u9fa5"),
    "Hangul": _of("\uac01"),
    "mathematical letters": _of("\U0001d400"),
    "ligatures of a phrase": _of("\ufdfa"),
    "marks": _of("a\u0301\u0316"),
    "one letter and marks": lambda size: "a" + "\u0301" * (size // 2 - 1),
    "invisible signs": _of("a\u200b"),
    "digits in letters": _of("1a "),
    "strokes": _of("aIl|"),
    "letters that stand alone": _of("a "),
    "beginnings of words": _begun(" "),
    "beginnings of words in pieces": _begun("-"),
    "one word": _of("a"),
    "tags": _of("<b>x</b>&amp;"),
    "open tags": _of("<a "),
    "attributes": _of("<a b='x'>"),
    "quotes": _of("<a b='"),
    "comments": _of("<!--"),
    "hidden": _of("<script>"),
    "references": _of("&#1092;"),
    "no references": _of("&#99999999999"),
}

#: ``name -> (bytes) -> the content of an event``.
CONTENTS: dict[str, Callable[[int], object]] = {
    "thousands of strings": lambda size: {"x": ["\u0444\u044b"] * (size // 8)},
    "thousands of keys": lambda size: {f"\u0444{n:x}": "\u044b" for n in range(size // 16)},
    "nested tags": lambda size: {"x": [["<b>" * 20] * 20] * (size // 30_000)},
    "everything nested": lambda size: _nested(size),
}


def _nested(size: int) -> object:
    found: object = "\u0444"
    for n in range(40):
        found = {f"\u044b{n}": [found, "<i>\u0444</i>" * (size // 40 // 12)]}
    return found


def _said(make: Callable[[int], str], form: str = "body") -> Run:
    """By Romeo, three times."""

    async def run(scene: Scene) -> None:
        content = {"msgtype": "m.text", "body": "x", "format": "org.matrix.custom.html", form: make(EVENT)}
        for _ in range(3):
            await _send(scene, content)

    return run


async def _send(scene: Scene, content: object, kind: str = "m.room.message") -> None:
    target = f"{CLIENT}/rooms/{part(scene.den.room_id)}/send/{kind}/{secrets.token_hex(6)}"
    status = await scene.as_romeo("PUT", target, orjson.dumps(content))
    assert status == 200, status


def _content(make: Callable[[int], object]) -> Run:
    async def run(scene: Scene) -> None:
        await _send(scene, make(EVENT), "dev.hansa.test")
        target = f"{CLIENT}/rooms/{part(scene.den.room_id)}/state/dev.hansa.test/{secrets.token_hex(4)}"
        await scene.as_romeo("PUT", target, orjson.dumps(make(EVENT)))

    return run


def _transaction_of(make: Callable[[int], str], count: int = 50) -> Run:
    """The largest of a server's."""

    async def run(scene: Scene) -> None:
        await scene.send(*[scene.message(make(EVENT)) for _ in range(count)])

    return run


def _body(method: str, target: str, make: Callable[[int], object], size: int) -> Run:
    """One request of Romeo's."""

    async def run(scene: Scene) -> None:
        where = target.replace("DEN", part(scene.den.room_id)).replace("ROMEO", part(scene.romeo.id))
        where = where.replace("TXN", secrets.token_hex(6))
        await scene.as_romeo(method, where, orjson.dumps(make(size)))

    return run


def _to_device(text: Callable[[int], str]) -> Callable[[int], object]:
    return lambda size: {"messages": {"@romeo:x.test": {"D": {"body": text(size)}}}}


def _device_messages(text: Callable[[int], str]) -> Run:
    """Twenty of a server's."""

    async def run(scene: Scene) -> None:
        def one() -> object:
            content = {
                "sender": scene.den.user,
                "type": "m.x",
                "message_id": secrets.token_hex(8),
                "messages": {scene.romeo.id: {"*": {"body": text(EVENT - KIB)}}},
            }
            return {"edu_type": "m.direct_to_device", "content": content}

        await scene.send(edus=[one() for _ in range(20)])

    return run


def _names(count: int) -> Run:
    """Queries for people whose names have much of what is listed."""

    async def run(scene: Scene) -> None:
        for number in range(count):
            name = f"@{number}" + "bad:@m.l" * 25
            target = f"{V1}/query/profile?user_id={part(name)}%3A{part(scene.name)}"
            await scene.signed("GET", target)

    return run


def _stanzas(text: Callable[[int], str], form: str, count: int = 50, size: int = 200 * KIB) -> Run:
    """Messages of an occupant, with all of it in elements that nobody knows."""
    speaker = "sampson@far.example/x"
    inner = form.replace("TEXT", _escaped(text(size - KIB)))
    come = f"<presence from='{speaker}' to='{MUC}/Sampson'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
    say = f"<message type='groupchat' from='{speaker}' to='{MUC}'><body>x</body>{inner}</message>"
    go = f"<presence type='unavailable' from='{speaker}' to='{MUC}/Sampson'/>"
    return flood(lambda: [come, *[say] * count, go])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _people(count: int) -> Run:
    """Questions of as many people of as many servers, whose names have much of what is listed."""
    asked = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
    return flood(
        lambda: (
            f"<iq type='get' id='q' from='u{n}@{'bad.m-l.' * 20}s{n}.example/x' to='{COMPONENT}'>{asked}</iq>"
            for n in range(count)
        )
    )


_HEAVY = ("Cyrillic", "beginnings of words in pieces", "tags", "Hangul")

JUDGED: list[Case] = [
    *(Case(f"60 KiB of {name} said", _said(make)) for name, make in TEXTS.items()),
    *(Case(f"60 KiB of {name} as markup", _said(make, "formatted_body")) for name, make in TEXTS.items()),
    *(Case(f"60 KiB of {name} as content and state", _content(make)) for name, make in CONTENTS.items()),
    *(Case(f"50 PDUs of 60 KiB of {name}", _transaction_of(TEXTS[name])) for name in _HEAVY),
    *(Case(f"20 messages to devices of 60 KiB of {name}", _device_messages(TEXTS[name])) for name in _HEAVY),
    *(
        Case(
            f"a megabyte of {name} to a device",
            _body("PUT", f"{CLIENT}/sendToDevice/m.x/TXN", _to_device(TEXTS[name]), 1000 * KIB),
        )
        for name in TEXTS
    ),
    *(
        Case(
            f"createRoom with a megabyte of {name}",
            _body(
                "POST",
                f"{CLIENT}/createRoom",
                lambda size, name=name: {
                    "initial_state": [{"type": "m.x", "state_key": "", "content": {"x": TEXTS[name](size)}}]
                },
                1000 * KIB,
            ),
        )
        for name in _HEAVY
    ),
    *(
        Case(
            f"a name of {name}",
            _body(
                "PUT",
                f"{CLIENT}/profile/ROMEO/displayname",
                lambda size, name=name: {"displayname": TEXTS[name](size)},
                1000 * KIB,
            ),
        )
        for name in _HEAVY
    ),
    *(
        Case(
            f"a status of {name}",
            _body(
                "PUT",
                f"{CLIENT}/presence/ROMEO/status",
                lambda size, name=name: {"presence": "online", "status_msg": TEXTS[name](size)},
                1000 * KIB,
            ),
        )
        for name in _HEAVY
    ),
    *(Case(f"a judged transaction of {kind} as PDUs", transaction(kind, where="pdus")) for kind in VALUES),
    *(Case(f"a judged transaction of {kind} as EDUs", transaction(kind)) for kind in VALUES),
    Case("200 queries for people of long names", _names(200)),
    *(Case(f"judged stanzas: {name}", run, mib=64.0) for name, run in STANZAS.items() if "hist" in name),
    *(Case(f"judged stanzas: {name}", run) for name, run in STANZAS.items() if "hist" not in name),
    *(
        Case(f"50 stanzas of 200 KiB of {name}", _stanzas(TEXTS[name], "<x xmlns='u:x'>TEXT</x>"))
        for name in _HEAVY
    ),
    Case(
        "50 stanzas of a thousand elements of Cyrillic",
        _stanzas(lambda size: "", "<x xmlns='u:x' a='\u0444'>\u0444\u044b<y/>\u0432</x>" * 499),
    ),
    Case("3,000 questions of people of many servers", _people(3000)),
]
