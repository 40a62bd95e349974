"""No policy locks a user in: not one that denies everything, and not one that fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from clients.matrix_server import matrix_server, part
from hansa import Action, Reason, Verdict
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.testing import until


class Denies:
    async def check(self, _crossing: Any) -> Verdict:
        return Verdict(Action.DENY, (Reason(code="GOV_TEST", policy="p", text="no"),))


class Limits:
    async def check(self, _crossing: Any) -> Verdict:
        return Verdict(Action.DENY, (Reason(code="GOV_TEST", policy="p", text="slow"),), retry_after=60.0)


class Raises:
    async def check(self, _crossing: Any) -> Verdict:
        raise ValueError("broken")


class Hangs:
    async def check(self, _crossing: Any) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("policy", [Denies(), Limits(), Raises(), Hangs()], ids=lambda p: type(p).__name__)
async def test_who_says_nothing_may_go_and_may_put_others_out(tmp_path, policy):
    async with matrix_server(tmp_path) as home:
        alice, bob, carol = [await home.person(name) for name in ("alice", "bob", "carol")]
        room = await alice.create(preset="public_chat")
        for person in (bob, carol):
            await person.join(room)
        invited = await alice.create(invite=[bob.user])
        home.app.decisions.replace([InstalledPolicy(name="p", policy=policy, timeout=0.01)])
        where = f"/rooms/{part(room)}"
        for person, path, body in (
            (bob, f"{where}/leave", {"reason": "with words"}),
            (alice, f"{where}/kick", {"user_id": carol.user, "reason": "with words"}),
            (alice, f"{where}/ban", {"user_id": carol.user, "reason": "with words"}),
        ):
            status, answer = await person.ask("POST", path, body)
            assert status in {403, 429} and answer["dev.hansa.decision"].startswith("d-"), path
        for person, path, body in (
            (bob, f"{where}/leave", {}),
            (bob, f"/rooms/{part(invited)}/leave", {}),
            (alice, f"{where}/kick", {"user_id": carol.user}),
            (alice, f"{where}/ban", {"user_id": carol.user}),
            (alice, f"{where}/unban", {"user_id": carol.user}),
        ):
            assert await person.call("POST", path, body) == {}, path
        proof = {"type": "m.id.user", "user": "alice"}
        auth = {"type": "m.login.password", "identifier": proof, "password": "of alice"}
        await alice.call("POST", "/account/deactivate", {"auth": auth})
        stays = home.matrix.local_server.memberships.memberships_of
        for person in (bob, carol):
            assert {stay.membership for stay in stays(person.user).values()} == {"leave"}

        async def gone() -> bool:
            return {stay.membership for stay in stays(alice.user).values()} == {"leave"}

        await until(gone)
