"""The scene that ``scripts/demo`` plays: real servers, real lines, a policy that stops one."""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from peers.ca import PrivateCA
from peers.hansa import Hansa
from peers.mongo import Mongo
from peers.postgres import Postgres
from peers.prosody import GATEWAY, HOST, Prosody, XmppUser
from peers.synapse import MatrixUser, Refusal, Synapse
from peers.waiting import until

MUC = f"lobby@{GATEWAY}"
_DECISION = re.compile(r"\[?(d-[a-z2-7]+)\]?")
_TABLES = """
[networks.xmpp]
plugin = "xmpp"
component = "{gateway}"
port = {port}
secret = "{secret}"

[policies.house]
plugin = "governance"
words = ["classified"]
deny_users = ["@mallory:*"]

[[rooms]]
links = ["matrix:#lobby", "xmpp:lobby"]
"""


class Stage:
    """Prints what happens as it happens."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, who: str, text: str) -> None:
        """One line of the transcript."""
        print(f"{time.monotonic() - self._began:6.1f}s  {who:<18}{text}", flush=True)


class Cast:
    """Everybody on stage. ``room`` is the Matrix room's id."""

    def __init__(
        self, stage: Stage, hansa: Hansa, alice: MatrixUser, juliet: XmppUser, romeo: MatrixUser
    ) -> None:
        self.stage, self.hansa, self.alice, self.juliet, self.romeo = stage, hansa, alice, juliet, romeo
        self.room = ""

    async def enter(self) -> None:
        """All join, each in their own way."""
        alias = f"#lobby:{self.hansa.name}"
        self.room = await self.alice.join(alias)
        self.stage.say("alice (Matrix)", f"joins {alias} from her own homeserver")
        await self.romeo.join(alias)
        self.stage.say("romeo (Matrix)", f"joins {alias} with an account on Hansa itself")
        await self.juliet.join(MUC, "juliet")
        self.stage.say("juliet (XMPP)", f"joins {MUC} with her own client")
        wanted = {"alice", "romeo"}
        await self.juliet.until("alice and romeo", lambda: wanted <= self.juliet.occupants(MUC))
        others = self.juliet.occupants(MUC) - {"juliet"}
        self.stage.say("juliet (XMPP)", f"sees {', '.join(sorted(others))} in the room")
        await until("alice sees juliet", lambda: _named(self.alice, self.room, "juliet"))
        self.stage.say("alice (Matrix)", "sees juliet in the room")

    async def alice_says(self, text: str) -> None:
        """Alice speaks; done when Juliet has read it."""
        self.stage.say("alice (Matrix)", f"says   {text}")
        await self.alice.say(self.room, text)
        await self.juliet.until(text, lambda: text in self.juliet.bodies(MUC))
        sender = next(m for m in self.juliet.messages(MUC) if m.findtext("{jabber:client}body") == text)
        self.stage.say("juliet (XMPP)", f"reads  {sender.get('from', '').partition('/')[2]}: {text}")

    async def romeo_says(self, text: str) -> None:
        """Romeo speaks; done when Alice and Juliet have read it."""
        self.stage.say("romeo (Matrix)", f"says   {text}")
        await self.romeo.say(self.room, text)
        await until(text, lambda: _reads(self.alice, self.room, text))
        self.stage.say("alice (Matrix)", f"reads  romeo: {text}")
        await self.juliet.until(text, lambda: text in self.juliet.bodies(MUC))
        self.stage.say("juliet (XMPP)", f"reads  romeo: {text}")

    async def juliet_says(self, text: str) -> None:
        """Juliet speaks; done when Alice has read it."""
        self.stage.say("juliet (XMPP)", f"says   {text}")
        problem = await self.juliet.verdict(self.juliet.say(MUC, text), MUC)
        if problem is not None:
            raise problem
        await until(text, lambda: _reads(self.alice, self.room, text))
        self.stage.say("alice (Matrix)", f"reads  juliet: {text}")
        await until(text, lambda: _reads(self.romeo, self.room, text))
        self.stage.say("romeo (Matrix)", f"reads  juliet: {text}")

    async def policy_stops(self) -> None:
        """Shows a forbidden word from each side, and a user who is not welcome."""
        word = "the plans are classified"
        self.stage.say("juliet (XMPP)", f"says   {word}")
        problem = await self.juliet.verdict(self.juliet.say(MUC, word), MUC)
        if problem is None:
            raise AssertionError("the policy did not stop juliet")
        self.stage.say("juliet (XMPP)", f"is refused: {problem.condition}: {problem.text}")
        await self._explain(problem.text)
        self.stage.say("alice (Matrix)", f"says   {word}")
        await self.alice.say(self.room, word)
        withheld = await until("the decision", lambda: _decision(self.hansa, "withhold"))
        self.stage.say("hansa", "keeps it from XMPP; on Matrix it is part of the room's history")
        await self._explain(withheld)
        await self.alice_says("anyone there?")
        if word in self.juliet.bodies(MUC):
            raise AssertionError("juliet read what was withheld")

    async def stranger(self, mallory: MatrixUser) -> None:
        """Adds a user that the policy keeps out."""
        try:
            await mallory.join(f"#lobby:{self.hansa.name}")
        except Refusal as refusal:
            text = str(refusal.body.get("error", ""))
            self.stage.say("mallory (Matrix)", f"may not join: {refusal.status} {text}")
            await self._explain(text)
        else:
            raise AssertionError("mallory came in")

    async def _explain(self, text: str) -> None:
        found = _DECISION.search(text)
        if found is None:
            raise AssertionError(f"no decision id in {text!r}")
        decision = await self.hansa.run("policy", "explain", found[1])
        reason = decision["reasons"][0]
        line = f"hansa policy explain {found[1]}: {reason['code']} {reason['policy']}, {reason['rule']}"
        self.stage.say("operator", line)


async def _named(user: MatrixUser, room: str, name: str) -> bool:
    return name in (await user.members(room)).values()


async def _reads(user: MatrixUser, room: str, text: str) -> bool:
    return text in await user.bodies(room)


async def _decision(hansa: Hansa, action: str) -> str:
    return next((d["id"] for d in await hansa.run("policy", "log") if d["action"] == action), "")


async def _linked(hansa: Hansa) -> bool:
    status = await hansa.run("status")
    rooms = await hansa.run("rooms", "ls")
    return all(n["state"] == "up" for n in status["networks"]) and any(len(r["links"]) == 2 for r in rooms)


async def _started(stage: Stage, name: str, starting: Any) -> Any:
    began = time.monotonic()
    made = await starting
    stage.say("stage", f"{name} is up ({time.monotonic() - began:.1f} s)")
    return made


def _how_to_connect(synapse: Synapse, prosody: Prosody, hansa: Hansa) -> str:
    return f"""
Everything goes on running until you press Ctrl-C.
  Matrix   homeserver {synapse.url}   user alice, password pw   room #lobby:{hansa.name}
  Matrix   homeserver {hansa.url}   user romeo, password pw   the same room
           (trust the certificate authority {prosody.ca.certificate})
  XMPP     server 127.0.0.1:{prosody.c2s_port}   user juliet@{HOST}, password pw   room {MUC}
           (trust the certificate authority {prosody.ca.certificate})
  Hansa    .venv/bin/hansa rooms ls -c {hansa.config}
           .venv/bin/hansa policy log -c {hansa.config}
"""


async def _told_to_stop() -> None:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()


def _store(kind: str, folder: Path, cleanup: AsyncExitStack) -> str:
    """The URL of an empty database of a kind."""
    if kind == "sqlite":
        return "sqlite:hansa.db"
    folder.mkdir()
    server = Postgres() if kind == "postgres" else Mongo(folder)
    cleanup.callback(server.stop)
    return server.start().database()


async def play(folder: Path, *, keep: bool, store: str = "sqlite") -> None:
    """The whole scene. Raises for the first line that does not arrive."""
    stage, ca = Stage(), PrivateCA(folder / "ca")
    async with AsyncExitStack() as cleanup:
        synapse = await _started(stage, "Synapse", Synapse(folder / "synapse", ca).start())
        cleanup.callback(synapse.stop)
        prosody = await _started(stage, "Prosody", Prosody(folder / "prosody", ca).start())
        cleanup.push_async_callback(prosody.stop)
        tables = _TABLES.format(gateway=GATEWAY, port=prosody.component_port, secret=prosody.secret)
        url = _store(store, folder / "database", cleanup)
        stage.say("stage", f"Hansa keeps everything in {url}")
        hansa = await _started(stage, "Hansa", Hansa(folder / "hansa", ca, tables, store=url).start())
        cleanup.push_async_callback(hansa.stop)
        await until("Hansa's room is linked on both sides", lambda: _linked(hansa))
        alice, mallory = await synapse.user("alice"), await synapse.user("mallory")
        juliet = await prosody.user("juliet", "balcony")
        romeo = await hansa.user("romeo")
        stage.say("operator", f"hansa user add romeo: {romeo.id}")
        for user in (alice, mallory, juliet, romeo):
            cleanup.push_async_callback(user.close)
        await romeo.call("PUT", f"/profile/{romeo.id}/displayname", {"displayname": "romeo"})
        cast = Cast(stage, hansa, alice, juliet, romeo)
        await cast.stranger(mallory)
        await cast.enter()
        await cast.alice_says("Good morrow, Verona!")
        await cast.juliet_says("How camest thou hither, tell me, and wherefore?")
        await cast.alice_says("By server to server, and no cloud between.")
        await cast.romeo_says("With love's light wings did I o'er-perch these walls.")
        await cast.policy_stops()
        await cast.juliet_says("Good night, good night!")
        stage.say("stage", "every line arrived")
        if keep:
            print(_how_to_connect(synapse, prosody, hansa), flush=True)
            await _told_to_stop()


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 only if every line arrived."""
    parser = argparse.ArgumentParser("scripts/demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running; say how to connect")
    parser.add_argument(
        "--store", choices=("sqlite", "postgres", "mongodb"), default="sqlite", help="where Hansa keeps all"
    )
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="hansa-demo-") as folder:
        try:
            asyncio.run(play(Path(folder), keep=arguments.keep, store=arguments.store))
        except KeyboardInterrupt:
            return 1
        except Exception as error:  # noqa: BLE001  # whatever broke, the visitor is told and the code is 1
            print(f"demo: it did not work: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
