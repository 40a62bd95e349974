"""Profiles of users, their OpenID tokens, and their presence."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hansa import LocalProtocolError, NativeId, RemoteProtocolError
from hansa_matrix.federation.client import RemoteError
from hansa_matrix.proto.edus import PresenceEdu, parse_presence
from hypothesis import given
from matrix.proto.json_values import json_values
from matrix.server_with_peer import OURS, THEIRS, V1, server_with_peer
from matrix.test_devices import THEM, US, Told, edus, known


async def test_a_profile_has_any_field_and_a_question_may_name_one(tmp_path):
    async with server_with_peer(tmp_path) as house:
        profiles = known(house).profiles
        target = f"{V1}/query/profile?user_id={quote(US, safe='')}"
        for field, value in (("displayname", "Hansa"), ("m.tz", "Europe/Luebeck"), ("org.x", {"a": [1]})):
            await profiles.set_field(US, field, value)
        whole = {"displayname": "Hansa", "m.tz": "Europe/Luebeck", "org.x": {"a": [1]}}
        assert await house.ask("GET", target) == (200, whole)
        assert await house.ask("GET", f"{target}&field=m.tz") == (200, {"m.tz": "Europe/Luebeck"})
        assert await house.ask("GET", f"{target}&field=none") == (200, {})
        await profiles.set_field(US, "org.x", None)
        assert await profiles.get_profile(US) == {k: v for k, v in whole.items() if k != "org.x"}
        for field, value in (("", 1), ("x" * 256, 1), ("large", "y" * 70_000)):
            with pytest.raises(LocalProtocolError):
                await profiles.set_field(US, field, value)
        nobody = f"{V1}/query/profile?user_id=@nobody:{OURS}"
        assert (await house.ask("GET", nobody))[0] == 404


async def test_a_profile_elsewhere_is_asked_for(tmp_path):
    async with server_with_peer(tmp_path) as house:
        answers: list[tuple[int, Any]] = []
        targets: list[str] = []

        def answer(request: Any) -> tuple[int, Any] | None:
            targets.append(request.target)
            return answers.pop(0)

        house.peer.answer = answer
        answers = [(200, {"displayname": "M"}), (404, {"errcode": "M_NOT_FOUND"}), (200, ["no"])]
        profiles = known(house).profiles
        assert await profiles.get_profile(THEM, "displayname") == {"displayname": "M"}
        assert targets == [f"{V1}/query/profile?user_id={quote(THEM, safe='')}&field=displayname"]
        with pytest.raises(RemoteError):
            await profiles.get_profile(THEM)
        with pytest.raises(RemoteProtocolError, match="must be a profile"):
            await profiles.get_profile(THEM)


async def test_a_token_shows_for_a_while_who_bears_it(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        openid, clock = known(house).openid, house.app.contexts["matrix"].clock
        token = await openid.issue_token(US, 3600)
        assert all(
            token not in str(row.key) for row in await house.app.contexts["matrix"].store.scan("openid")
        )
        target = f"{V1}/openid/userinfo?access_token="
        assert await house.ask("GET", target + token) == (200, {"sub": US})
        for none in ("", "x", token[:-1], "y" * 2000):
            status, answer = await house.ask("GET", target + none)
            assert (status, answer["errcode"]) == (401, "M_UNKNOWN_TOKEN")
        now = clock.now()
        monkeypatch.setattr(type(clock), "now", lambda _: now + 3_600_001)
        assert await openid.user_of_token(token) is None


async def test_a_server_says_who_of_its_own_bears_a_token(tmp_path):
    async with server_with_peer(tmp_path) as house:
        said: list[Any] = [{"sub": THEM}, {"sub": US}, {"sub": 7}, []]
        house.peer.answer = lambda r: (200, said.pop(0)) if "userinfo" in r.target else None
        openid = known(house).openid
        assert await openid.verify_token(THEIRS, "a b") == THEM
        assert house.peer.asked[-1].target.endswith("access_token=a%20b")
        assert "Authorization" not in house.peer.asked[-1].headers
        for _ in range(3):
            with pytest.raises(RemoteProtocolError, match="does not say"):
                await openid.verify_token(THEIRS, "t")


def there(user: str, presence: str = "online", **more: Any) -> dict[str, Any]:
    return {"push": [{"user_id": user, "presence": presence, "last_active_ago": 5, **more}]}


async def test_presence_is_off_unless_an_operator_wants_it(tmp_path):
    async with server_with_peer(tmp_path) as house:
        told = Told(house)
        assert await edus(house, ("m.presence", there(THEM))) == 200
        await known(house).presences.set_local(PresenceEdu(user=US, presence="online"))
        assert known(house).presences.get(THEM) is None and known(house).presences.get(US) is None
        assert not told.edus and THEIRS not in house.matrix.destination_queues


async def test_presence_of_who_is_in_a_room_with_us(tmp_path):
    async with server_with_peer(tmp_path, presence_enabled=True) as house:
        told, presences = Told(house), known(house).presences
        changed: list[str] = []
        house.matrix.network.homeserver.local.notifier.presence_changed = changed.append
        for user in (THEM, f"@stranger:{THEIRS}", US, "@m:elsewhere"):
            await edus(house, ("m.presence", there(user, status_msg="here")))
        one = PresenceEdu(user=THEM, presence="online", last_active_ago=5, status="here")
        assert presences.get(THEM) == one and changed == [THEM]
        assert [presences.get(f"@stranger:{THEIRS}"), presences.get(US)] == [None, None]
        await presences.set_local(
            PresenceEdu(user=US, presence="unavailable", last_active_ago=7, active=True, status="tea")
        )
        (content,) = await told.last(1)
        said = {"user_id": US, "presence": "unavailable", "last_active_ago": 7}
        assert content == {"push": [{**said, "currently_active": True, "status_msg": "tea"}]}


@given(json_values)
def test_no_presence_makes_the_parser_raise(value: Any) -> None:
    assert list(parse_presence({"push": value}, THEIRS)) == []
    list(
        parse_presence({"push": [{"user_id": THEM, "presence": "online", "last_active_ago": value}]}, THEIRS)
    )
    list(parse_presence({"push": [value]}, THEIRS))


async def test_a_ghosts_profile_is_the_name_in_its_room(tmp_path):
    async with server_with_peer(tmp_path) as house:
        ghost = await house.app.contexts["matrix"].get_ghost_id(NativeId("elsewhere", "nobody"))
        status, _ = await house.ask("GET", f"{V1}/query/profile?user_id={quote(ghost, safe='')}")
        assert status == 404
