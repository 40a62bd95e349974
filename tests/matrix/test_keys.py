"""Our keys and those of others: rotated, kept for ever, asked for once, vouched for by a notary."""

from __future__ import annotations

import asyncio
import secrets
import stat
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hansa import Action, ConfigError, LocalProtocolError, PeerConnect, Verdict
from hansa_matrix.crypto import SigningKey, verify_signature
from hansa_matrix.federation.signing_keys import SigningKeys
from hansa_matrix.proto.servers.key_document import DAY, check_key_document, key_document
from hansa_matrix.proto.signing import signable_bytes, signatures_of, with_signature
from matrix.server_with_peer import OURS, THEIRS, ServerWithPeer, server_with_peer
from peers.event_forge import now

NOTARY, GONE = "notary.example:1", "gone.example:1"
KEY = "/_matrix/key/v2"


def document(server: str, key: SigningKey, until: int | None = None) -> dict[str, Any]:
    doc = key_document(server, {key.key_id: key.public}, until or now() + DAY)
    return with_signature(doc, server, key.key_id, key.sign(signable_bytes(doc)))


def vouched(doc: dict[str, Any], by: str, key: SigningKey) -> dict[str, Any]:
    return with_signature(doc, by, key.key_id, key.sign(signable_bytes(doc)))


def made(name: str) -> SigningKey:
    return SigningKey.from_seed(f"ed25519:{name}", secrets.token_bytes(32))


async def plain(house: ServerWithPeer, method: str, target: str, body: Any = None) -> tuple[int, Any]:
    """A request that nobody signed."""
    return await house.ask(method, target, body)


# Ours.


def test_k1_a_rotation_is_in_the_file_before_it_signs(tmp_path):
    """Mistake 8: no id is ever given to a second key, and no key is lost."""
    path = tmp_path / "matrix.key"
    first = made("one")
    path.write_text(first.line())
    path.chmod(0o600)
    keys = SigningKeys.read(path)
    second = keys.rotate(secrets.token_bytes(36), 1_000)
    third = keys.rotate(secrets.token_bytes(36), 2_000)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["matrix.key"]
    again = SigningKeys.read(path)
    assert again.current.key_id == third.key_id == keys.current.key_id
    assert again.current.public == third.public
    old = {first.key_id: (first.public, 1_000), second.key_id: (second.public, 2_000)}
    assert again.old == old and keys.old == old
    assert len({first.key_id, second.key_id, third.key_id}) == 3
    assert second.line() not in path.read_text()


def test_k1_a_rotation_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "matrix.key"
    path.write_text(made("one").line())
    keys = SigningKeys.read(path)
    before = path.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="space"):
        keys.rotate(secrets.token_bytes(36), 1_000)
    assert (keys.current.key_id, keys.old, path.read_text()) == ("ed25519:one", {}, before)


@pytest.mark.parametrize(
    "line", ["old x", "old x AAAA 5", f"old x {'A' * 43} -5", f"new x {'A' * 43} 5", f"old x! {'A' * 43} 5"]
)
def test_a_key_file_with_an_odd_line_is_refused(tmp_path, line):
    path = tmp_path / "matrix.key"
    path.write_text(made("one").line() + line + "\n")
    with pytest.raises(ConfigError, match="further line"):
        SigningKeys.read(path)


async def test_a_rotation_while_running_signs_at_once_and_the_old_key_stays_published(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        _, before = await plain(house, "GET", f"{KEY}/server")
        (old,) = before["verify_keys"]
        at = now()
        new = (await matrix.network.admin_commands()["keys rotate"]({}))["key"]
        _, after = await plain(house, "GET", f"{KEY}/server")
        assert list(after["verify_keys"]) == [new] and new != old
        expired = after["old_verify_keys"][old]
        assert expired["key"] == before["verify_keys"][old]["key"] and at <= expired["expired_ts"] <= now()
        found = check_key_document(after, OURS, verify_signature, now())
        assert set(found) == {old, new}
        assert list(signatures_of(after, OURS)) == [new]
        name = (await house.app.link_room(["matrix:#three"], create=True)) and await matrix.network.room_at(
            f"#three:{OURS}"
        )
        state = await matrix.get_room(name).state_events(await matrix.get_room(name).state())
        assert all(list(p.raw["signatures"][OURS]) == [new] for p in state)
        assert matrix.keyring.get(OURS, old).valid_until == expired["expired_ts"]
        listed = await matrix.network.admin_commands()["keys ls"]({})
        assert [(k["key"], bool(k["expired"])) for k in listed] == [(new, False), (old, True)]


async def test_a_rotation_that_fails_says_why(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:

        def full(_: int) -> None:
            raise OSError(28, "No space left on device", "matrix.key")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(LocalProtocolError, match="No space left on device; the key is as it was"):
            await house.matrix.network.admin_commands()["keys rotate"]({})


# Others': asked for once.


async def test_k4_one_look_up_however_many_events_wait(tmp_path):
    async with server_with_peer(tmp_path) as house:
        keyring = house.matrix.keyring
        other = made("x")
        house.peer.keys = lambda _: (200, document("other.example:1", other))
        before = len(house.peer.asked)
        wanted = [("other.example:1", "ed25519:x")]
        await asyncio.gather(*(keyring.ensure_keys(wanted, 5) for _ in range(200)))
        assert len(house.peer.asked) == before + 1
        assert keyring.get("other.example:1", "ed25519:x").public == other.public
        for _ in range(20):  # a key that the server does not have is not asked for with every event
            await keyring.ensure_keys([("other.example:1", "ed25519:absent")], 5)
        assert len(house.peer.asked) == before + 2


async def test_k4_a_server_that_is_gone_is_asked_ever_more_seldom(tmp_path):
    async with server_with_peer(tmp_path) as house:
        keyring = house.matrix.keyring
        house.peer.keys = lambda _: None
        times, clock = [], [0.0]
        keyring._clock = type("C", (), {"monotonic": lambda _: clock[0], "now": lambda _: 0})()
        for second in range(40_000):
            clock[0] = float(second)
            asked = len(house.peer.asked)
            await keyring.ensure_keys([(GONE, f"ed25519:{second}")], 5)
            if len(house.peer.asked) > asked:
                times.append(second)
        gaps = [b - a for a, b in pairwise(times)]
        assert gaps == sorted(gaps) or max(gaps) > 3000
        assert 54 <= gaps[0] <= 66 and len(times) < 25
        assert keyring.pending_servers([(GONE, "ed25519:1")]) == []  # nobody waits for ever


async def test_k5_the_latest_validity_is_kept_and_an_id_never_changes_its_key(tmp_path):
    async with server_with_peer(tmp_path) as house:
        keyring = house.matrix.keyring
        first, other = made("x"), made("x")
        name = [("other.example:1", "ed25519:x")]
        house.peer.keys = lambda _: (200, document("other.example:1", first, now() + 2 * DAY))
        await keyring.ensure_keys(name, 5)
        until = keyring.get(*name[0]).valid_until
        house.peer.keys = lambda _: (200, document("other.example:1", first, now() + DAY))
        await keyring.ask_again(["other.example:1"])
        assert keyring.get(*name[0]).valid_until == until
        house.peer.keys = lambda _: (200, document("other.example:1", other, now() + 3 * DAY))
        await keyring.ask_again(["other.example:1"])
        assert keyring.get(*name[0]).public == first.public


async def test_k9_what_a_leaked_key_signed_is_not_signed(tmp_path):
    leaked = made("x")
    async with server_with_peer(tmp_path, revoked_keys=[leaked.public]) as house:
        keyring = house.matrix.keyring
        house.peer.keys = lambda _: (200, document("other.example:1", leaked))
        await keyring.ensure_keys([("other.example:1", "ed25519:x")], 5)
        assert keyring.get("other.example:1", "ed25519:x") is None


# Notaries.


class Vouching:
    """A notary and a server that is gone, which the notary has heard of."""

    def __init__(self, house: ServerWithPeer) -> None:
        self.house = house
        self.notary, self.gone = made("n"), made("g")
        self.by = self.notary
        self.doc = document(GONE, self.gone)
        self.queries: list[Any] = []
        house.peer.keys = self.keys
        house.peer.answer = self.answer

    def keys(self, request: Any) -> Any:
        if request.host_header == NOTARY:
            return 200, document(NOTARY, self.notary)
        return None

    def answer(self, request: Any) -> Any:
        if request.target == f"{KEY}/query" and request.host_header == NOTARY:
            body = orjson.loads(request.body)
            self.queries.append(body)
            return 200, {"server_keys": [vouched(self.doc, NOTARY, self.by), {}, 7]}
        return None


async def test_k8_a_notary_vouches_for_a_server_that_is_gone(tmp_path):
    async with server_with_peer(tmp_path, trusted_key_servers=[NOTARY]) as house:
        vouching = Vouching(house)
        keyring = house.matrix.keyring
        await keyring.ensure_keys([(GONE, "ed25519:g"), ("other.gone:1", "ed25519:o")], 7)
        assert keyring.get(GONE, "ed25519:g").public == vouching.gone.public
        minimum = {"minimum_valid_until_ts": 7}
        asked = {GONE: {"ed25519:g": minimum}, "other.gone:1": {"ed25519:o": minimum}}
        assert vouching.queries == [{"server_keys": asked}]  # both in one request
        await keyring.ensure_keys([("other.gone:1", "ed25519:o")], 7)
        assert len(vouching.queries) == 1


async def test_k8_neither_signature_may_be_missing(tmp_path):
    async with server_with_peer(tmp_path, trusted_key_servers=[NOTARY]) as house:
        keyring = house.matrix.keyring
        vouching = Vouching(house)
        vouching.by = made("n")  # another key under the notary's id
        await keyring.ensure_keys([(GONE, "ed25519:g")], 7)
        assert keyring.get(GONE, "ed25519:g") is None
        vouching.by = vouching.notary
        vouching.doc = {**vouching.doc, "signatures": {}}
        keyring._unvouched.clear()
        await keyring.ensure_keys([(GONE, "ed25519:g")], 7)
        assert keyring.get(GONE, "ed25519:g") is None
        assert len(vouching.queries) == 2


async def test_the_keys_of_a_server_that_policy_denies_come_from_a_notary(tmp_path):
    async with server_with_peer(tmp_path, trusted_key_servers=[NOTARY]) as house:
        vouching = Vouching(house)
        matrix = house.matrix
        checked = matrix.federation_client._check

        async def check(crossing: PeerConnect) -> Verdict:
            denied = crossing.server == GONE
            return Verdict(Action.DENY) if denied else await checked(crossing)

        matrix.federation_client._check = check
        await matrix.keyring.ensure_keys([(GONE, "ed25519:g")], 7)
        assert matrix.keyring.get(GONE, "ed25519:g").public == vouching.gone.public
        assert all(request.host_header != GONE for request in house.peer.asked)


async def test_k7_we_vouch_for_others_with_their_own_document(tmp_path):
    async with server_with_peer(tmp_path) as house:
        status, got = await plain(house, "GET", f"{KEY}/query/{THEIRS}")
        (doc,) = got["server_keys"]
        assert status == 200 and doc["server_name"] == THEIRS
        ours = (await plain(house, "GET", f"{KEY}/server"))[1]["verify_keys"]
        ((key_id, signature),) = signatures_of(doc, OURS).items()
        assert verify_signature(ours[key_id]["key"], signature, signable_bytes(doc))
        check_key_document(doc, THEIRS, verify_signature, now())
        asked = len(house.peer.asked)
        body = {"server_keys": {THEIRS: {}, OURS: {"ed25519:a": {}}, "none.example:1": {}, "no name": {}}}
        house.peer.keys = lambda _: None
        status, got = await plain(house, "POST", f"{KEY}/query", body)
        assert status == 200 and sorted(d["server_name"] for d in got["server_keys"]) == [OURS, THEIRS]
        assert len(house.peer.asked) == asked + 1  # only who is not known at all
        latest = {"server_keys": {THEIRS: {"ed25519:now": {"minimum_valid_until_ts": 2**53 - 1}}}}
        status, got = await plain(house, "POST", f"{KEY}/query", latest)
        assert [d["server_name"] for d in got["server_keys"]] == [THEIRS]  # the last known answer
        assert len(house.peer.asked) == asked + 2


@pytest.mark.parametrize("body", [{}, {"server_keys": 7}, {"server_keys": []}, {"server_keys": None}])
async def test_k7_a_query_of_another_shape(tmp_path, body):
    async with server_with_peer(tmp_path) as house:
        status, answer = await plain(house, "POST", f"{KEY}/query", body)
        assert (status, answer["errcode"]) == (400, "M_BAD_JSON")


async def test_k7_who_asks_too_often_gets_what_is_known(tmp_path):
    async with server_with_peer(tmp_path) as house:
        house.peer.keys = lambda _: None
        before = len(house.peer.asked)
        for number in range(0, 300, 100):
            servers = {f"s{n}.example:1": {} for n in range(number, number + 100)}
            status, got = await plain(house, "POST", f"{KEY}/query", {"server_keys": servers})
            assert (status, got) == (200, {"server_keys": []})
        assert 100 <= len(house.peer.asked) - before <= 110


async def test_one_key_of_a_server_is_asked_for_by_its_id(tmp_path, monkeypatch):
    """A document without it is fetched again, but not again and again; a request for one key gets no
    other.
    """
    async with server_with_peer(tmp_path) as house:
        first, second = made("one"), made("two")
        asked: list[str] = []

        def keys(request: Any) -> Any:
            asked.append(request.host_header)
            return 200, document("other.example:1", current)

        current = first
        house.peer.keys = keys

        async def query(*ids: str, minimum: int = 0) -> list[str]:
            wanted = {key_id: {"minimum_valid_until_ts": minimum} for key_id in ids}
            body = {"server_keys": {"other.example:1": wanted}}
            _, found = await plain(house, "POST", f"{KEY}/query", body)
            return [key for doc in found["server_keys"] for key in doc["verify_keys"]]

        assert await query() == ["ed25519:one"]
        assert await query("ed25519:one") == ["ed25519:one"]
        current = second
        assert await query("ed25519:two") == []
        assert len(asked) == 1
        monkeypatch.setattr("hansa_matrix.federation.keyring._AS_GOOD_AS_NEW", 0)
        assert await query("ed25519:two", "ed25519:none") == ["ed25519:two"]
        assert len(asked) == 2
        assert await query("ed25519:two") == ["ed25519:two"]
        assert len(asked) == 2
        _, found = await plain(house, "GET", f"{KEY}/query/other.example%3A1/ed25519%3Atwo")
        assert len(found["server_keys"]) == 1
        _, found = await plain(house, "GET", f"{KEY}/query/other.example%3A1/ed25519%3Aone")
        assert found["server_keys"] == []
