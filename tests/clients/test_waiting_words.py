"""An event that waits for another server is sent as the policies allow at that time."""

from __future__ import annotations

from typing import Any

import orjson
from clients.matrix_server import matrix_server
from clients.test_crypto import cross
from clients.test_withheld import Censor
from clients.test_words_elsewhere import FORBID, WORD
from hansa import Row
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.testing import until
from hansa_matrix.federation.durable_edus import GENERATION, edu_to_send, stored_edu
from matrix.server_with_peer import OURS, THEIRS
from nacl.signing import SigningKey

THEM = f"@m:{THEIRS}"


class Post:
    """Their server, which takes what it is sent while it is ``open``."""

    def __init__(self, home: Any) -> None:
        self.open = True
        self.tried: list[dict[str, Any]] = []
        self.taken: list[dict[str, Any]] = []
        self.names: list[str] = []
        home.wire.peer.answer = self

    def __call__(self, request: Any) -> Any:
        if "/send/" not in request.target:
            return None
        (self.taken if self.open else self.tried).append(orjson.loads(request.body))
        self.names.append(request.target.rpartition("/")[2])
        return (200, {"pdus": {}}) if self.open else (500, {"errcode": "M_UNKNOWN", "error": "not now"})

    async def entered(self, person: Any) -> str:
        """The room that they are in; from then on nothing is taken."""
        room = await person.join(f"#one:{OURS}")
        await self.until("taken", person.user)
        self.open = False
        self.taken.clear()
        return str(room)

    async def until(self, which: str, text: str) -> None:
        await until(lambda: text in str(getattr(self, which)))


async def test_what_is_tried_again_after_a_reload_is_judged_again(tmp_path):
    """The transaction under way too: what was tried and not taken is another one then."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        post = Post(home)
        room = await post.entered(alice)
        await alice.say(room, f"it is {WORD}")
        await post.until("tried", WORD)
        tried = set(post.names)
        home.app.decisions.replace([*FORBID, InstalledPolicy(name="censor", policy=Censor())])
        post.open = True
        fair = await alice.say(room, "it is fair")
        home.matrix.sender.heard_from(THEIRS)
        await post.until("taken", "it is fair")
        assert WORD not in str(post.taken)
        assert len([pdu for one in post.taken for pdu in one["pdus"]]) >= 2, "the event itself they need"
        assert not tried & set(post.names[-len(post.taken) :])
        assert fair


async def test_messages_and_keys_that_wait_are_judged_again(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        post = Post(home)
        await post.entered(alice)
        for number, text in enumerate((f"it is {WORD}", "it is fair")):
            messages = {THEM: {"*": {"x": text}}}
            await alice.call("PUT", f"/sendToDevice/test.x/{number}", {"messages": messages})
        master = {**cross(alice, "master", SigningKey.generate()), "note": WORD}
        await alice.call("POST", "/keys/device_signing/upload", {"master_key": master})
        await post.until("tried", WORD)
        home.app.decisions.replace(FORBID)
        post.open = True
        home.matrix.sender.heard_from(THEIRS)
        await post.until("taken", "it is fair")
        assert WORD not in str(post.taken) and GENERATION not in str(post.taken)


async def test_what_was_judged_by_the_policies_of_now_is_not_asked_about_again(tmp_path):
    async with matrix_server(tmp_path) as home:
        home.app.decisions.replace(FORBID)
        context = home.app.contexts["matrix"]
        content = {
            "sender": f"@a:{OURS}",
            "type": "x",
            "message_id": "1",
            "messages": {THEM: {"*": {"x": WORD}}},
        }
        edu = {"edu_type": "m.direct_to_device", "content": content}

        async def left(generation: int) -> Any:
            return await edu_to_send(context, Row(key=(1,), fields={}, body=stored_edu(edu, generation)))

        assert await left(context.policy_generation) == edu
        assert await left(context.policy_generation - 1) is None
        assert await left(0) is None
        home.app.decisions.replace([])
        assert await left(1) == edu
