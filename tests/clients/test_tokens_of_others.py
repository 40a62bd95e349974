"""A token of a sync says of the messages to a device what that device has, and of no other device."""

from __future__ import annotations

import pytest
from clients.matrix_server import LocalUser, matrix_server


async def told(person: LocalUser, since: str) -> tuple[list[str], str]:
    """The messages to a device behind a token, and the next token."""
    got = await person.get(f"/sync?since={since}")
    return [one["content"]["n"] for one in got.get("to_device", {}).get("events", [])], got["next_batch"]


async def say(home, alice: LocalUser, number: int) -> None:
    bob = home.bob
    body = {"messages": {alice.user: {"*": {"n": number}}}}
    await bob.call("PUT", f"/sendToDevice/test.x/{number}", body)


@pytest.mark.parametrize("kind", ["another person", "without a device", "a position alone"])
async def test_a_token_of_elsewhere_skips_and_deletes_no_message(tmp_path, kind):
    async with matrix_server(tmp_path) as home:
        alice, home.bob = await home.person("alice"), await home.person("bob")
        own = (await alice.get("/sync"))["next_batch"]
        await say(home, alice, 1)
        other = (await home.bob.get("/sync"))["next_batch"]
        if kind == "without a device":
            other = other.rpartition("_")[0]
        elif kind == "a position alone":
            other = other.partition("_")[0]
        assert (await told(alice, other))[0] == [1]
        assert (await told(alice, other))[0] == [1]
        got, own = await told(alice, own)
        assert got == [1]
        await say(home, alice, 2)
        assert (await told(alice, own))[0] == [2]
        assert (await told(alice, other))[0] == [2]  # what one has is not told again
