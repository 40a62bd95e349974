"""Admin commands about policies: what they would decide, and why they decided what they did."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hansa.app import App
from hansa.bus.policy_dispatch import PolicyAnswer, ask_policy
from hansa.bus.policy_engine import crossing_facts
from hansa.environment import Request
from hansa.host.room_names import RoomNames, missing
from hansa.model.content import Message
from hansa.model.crossing import Crossing, EventIn, EventOut
from hansa.model.errors import LocalProtocolError
from hansa.model.events import NativeFacts
from hansa.model.ref import NativeId
from hansa.model.verdict import strictest

#: Decisions in one answer.
_MAX_DECISIONS = 1000


class PolicyCommands:
    """``hansa policy ...``."""

    def __init__(self, app: App, names: RoomNames) -> None:
        self._app = app
        self._names = names

    async def test(self, _request: Request, body: Any) -> Any:
        """Evaluates each policy for a message without sending it: on its way in, and on its way out to the
        people of each link. On the sender's own link, the way out is the way to people of this server.
        """
        room = await self._names.room(str(body["room"]))
        network, _, user = str(body["sender"]).partition(":")
        link = room.link_of(network)
        if link is None:
            raise missing(f"room {room.id} has no link of network {network!r}")
        sender, text = NativeId(network, user), str(body.get("text", ""))
        server = self._app.pipeline.server_of(network, user)
        facts = NativeFacts(sender_server=server, room_servers=room.view.servers(), texts=(text,))
        crossing = EventIn(link=link, sender=sender, content=Message(text=text), view=room.view, facts=facts)
        ways: list[tuple[str, Crossing]] = [("in", crossing)]
        for one in room.links.values():
            if one.direction.outward:
                out = EventOut(link=one, sender=sender, content=crossing.content, view=room.view, facts=facts)
                ways.append((f"out to {one.id}", out))
        answers = [
            (way, await ask_policy(installed, asked))
            for way, asked in ways
            for installed in self._app.decisions.policies
        ]
        merged = strictest(a.verdict for way, a in answers if not a.shadow and way == "in")
        return {
            "action": merged.action.name.lower(),
            "out": {
                way.removeprefix("out to "): _merged_action(a for w, a in answers if w == way)
                for way, _ in ways[1:]
            },
            "facts": crossing_facts(crossing),
            "policies": [
                {
                    "policy": a.name,
                    "way": way,
                    "shadow": a.shadow,
                    "action": a.verdict.action.name.lower(),
                    "reasons": [f"{r.code} {r.rule} {r.admin_text}".strip() for r in a.verdict.reasons],
                    "failed": a.failed,
                }
                for way, a in answers
            ],
        }

    async def explain(self, request: Request, _body: Any) -> Any:
        """Rule, facts and verdict of a decision."""
        try:
            return await self._app.decisions.explain(request.path["decision"])
        except LocalProtocolError as error:
            raise missing(str(error)) from error

    async def log(self, _request: Request, _body: Any) -> Any:
        """The newest decisions that were not a plain allow, oldest first."""
        return await self._app.decisions.log(_MAX_DECISIONS)


def _merged_action(answers: Iterable[PolicyAnswer]) -> str:
    return strictest(a.verdict for a in answers if not a.shadow).action.name.lower()
