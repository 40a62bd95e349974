"""The worst that an XMPP server and its people can send to our component, as whole streams of stanzas."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable

from hostile.scene import COMPONENT, MUC, Scene

Run = Callable[[Scene], Awaitable[object]]

_X = "<x xmlns='http://jabber.org/protocol/muc'/>"
_PING = "<ping xmlns='urn:xmpp:ping'/>"
_ROOMS = "<query xmlns='http://jabber.org/protocol/disco#items'/>"
_NS = "{jabber:component:accept}"


def flood(stanzas: Callable[[], Iterable[str]]) -> Run:
    """All of them in one go; it ends when what was sent last is answered."""

    async def run(scene: Scene) -> None:
        link, name = scene.link, secrets.token_hex(6)
        last = f"<iq type='get' id='{name}' from='last@far.example/x' to='{COMPONENT}'>{_PING}</iq>"
        link.stanzas.clear()
        link.send("".join([*stanzas(), last]))
        await link.until("answer the last", lambda: any(e.get("id") == name for e in link.stanzas), 100)
        link.stanzas.clear()

    return run


def pings(count: int) -> Run:
    """Of one person."""
    one = f"<iq type='get' id='p' from='mercutio@far.example/x' to='{COMPONENT}'>{_PING}</iq>"
    return flood(lambda: [one] * count)


def questions(count: int) -> Run:
    """Queries for the rooms, each by another user."""
    return flood(
        lambda: (
            f"<iq type='get' id='q' from='u{n}@far.example/x' to='{COMPONENT}'>{_ROOMS}</iq>"
            for n in range(count)
        )
    )


def archives(count: int) -> Run:
    """Queries of a room's archive, each by another user, who is not in the room."""
    asked = "<query xmlns='urn:xmpp:mam:2'/>"
    return flood(
        lambda: (
            f"<iq type='set' id='q' from='u{n}@far.example/x' to='{MUC}'>{asked}</iq>" for n in range(count)
        )
    )


def entries(count: int) -> Run:
    """Of as many people, who leave again."""

    async def run(scene: Scene) -> None:
        who = [f"u{secrets.token_hex(4)}@far.example/x" for _ in range(count)]
        await flood(lambda: (f"<presence from='{u}' to='{MUC}/{u[:9]}'>{_X}</presence>" for u in who))(scene)
        await scene.meter.idle()
        await flood(lambda: (f"<presence type='unavailable' from='{u}' to='{MUC}/{u[:9]}'/>" for u in who))(
            scene
        )

    return run


def renames(count: int) -> Run:
    """Of one occupant."""

    async def run(scene: Scene) -> None:
        await flood(
            lambda: (
                f"<presence from='tybalt@far.example/x' to='{MUC}/t{n}'>{_X}</presence>" for n in range(count)
            )
        )(scene)
        await flood(lambda: [f"<presence type='unavailable' from='tybalt@far.example/x' to='{MUC}/t'/>"])(
            scene
        )

    return run


def words(count: int, size: int) -> Run:
    """Of people who are in no room."""
    body = "x" * size
    return flood(
        lambda: (
            f"<message type='groupchat' from='u{n}@far.example/x' to='{MUC}'><body>{body}</body></message>"
            for n in range(count)
        )
    )


def stanzas_of(count: int, inner: str, attributes: str = "") -> Run:
    """Messages made of something."""
    return flood(
        lambda: (
            f"<message type='groupchat' from='u{n % 50}@far.example/x' to='{MUC}' {attributes}>{inner}</message>"
            for n in range(count)
        )
    )


def histories(count: int, *, archive: bool = False) -> Run:
    """Everything that was ever said, by as many at once; each leaves again. Large words stand in the room.
    ``archive``: as the largest page of the archive.
    """

    async def run(scene: Scene) -> None:
        link = scene.link
        speaker = f"s{secrets.token_hex(4)}@far.example/x"
        link.stanzas.clear()
        link.send(f"<presence from='{speaker}' to='{MUC}/{speaker[:9]}'>{_X}</presence>")
        await link.until(
            "let the speaker in", lambda: any(e.find(f"{_NS}subject") is not None for e in link.stanzas)
        )
        body = "x" * 32_000
        for done in range(0, 300, 50):
            before = len(link.stanzas)
            link.send(
                "".join(
                    f"<message type='groupchat' from='{speaker}' to='{MUC}' id='w{n}'><body>{body}</body></message>"
                    for n in range(done, done + 50)
                )
            )
            await link.until("show the words", lambda before=before: len(link.stanzas) >= before + 50, 60)
        link.stanzas.clear()
        who = [f"h{secrets.token_hex(4)}@far.example/x" for _ in range(count)]
        most = 0 if archive else 1000
        asked = f"<x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='{most}'/></x>"
        await flood(lambda: (f"<presence from='{u}' to='{MUC}/{u[:9]}'>{asked}</presence>" for u in who))(
            scene
        )
        await scene.meter.idle()
        if archive:
            page = "<set xmlns='http://jabber.org/protocol/rsm'><max>100</max><before/></set>"
            query = f"<query xmlns='urn:xmpp:mam:2'>{page}</query>"
            await flood(lambda: (f"<iq type='set' id='q' from='{u}' to='{MUC}'>{query}</iq>" for u in who))(
                scene
            )
            await scene.meter.idle()
        await flood(
            lambda: (f"<presence type='unavailable' from='{u}' to='{MUC}/x'/>" for u in [*who, speaker])
        )(scene)

    return run


STANZAS: dict[str, Run] = {
    "20,000 pings of one person": pings(20_000),
    "20,000 questions for rooms": questions(20_000),
    "1,500 people who enter": entries(1500),
    "2,000 new nicks of one occupant": renames(2000),
    "20,000 messages of people who are not here": words(20_000, 10),
    "300 messages of 200 KiB": words(300, 200 * 1024),
    "300 messages of a thousand elements": stanzas_of(300, "<a/>" * 998),
    "300 messages of many attributes": stanzas_of(300, "", " ".join(f"a{n}='{n}'" for n in range(3900))),
    "300 messages over the bounds": stanzas_of(300, "<a/>" * 20_000),
    "300 deep messages": stanzas_of(300, "<a>" * 1000 + "</a>" * 1000),
    "30 people who want all history": histories(30),
    "20,000 queries of an archive": archives(20_000),
    "30 people who want a page of the history": histories(30, archive=True),
}
