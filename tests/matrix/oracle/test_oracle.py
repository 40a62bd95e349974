"""Hansa and Synapse judge the same rooms: authorisation, state resolution, ids, hashes, redaction.

``HANSA_SEED`` (default 1) and ``HANSA_ORACLE_CASES`` (rooms per version, default 2000) change what is asked;
a failure names the seed of the room, which ``random_graph`` makes again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hansa_matrix.crypto import SigningKey, verify_signature
from hansa_matrix.proto.auth_rules.rules import check_event_auth
from hansa_matrix.proto.auth_rules.third_party import third_party_verifier
from hansa_matrix.proto.hashing import content_hash, event_id, hash_matches
from hansa_matrix.proto.pdu import VerifyKey, hash_and_sign, pdu_from_raw, signature_problem
from hansa_matrix.proto.redact import redact_event
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion
from hansa_matrix.proto.signing import signable_bytes
from matrix.oracle.client import Oracle
from matrix.oracle.graphs import Graph, random_graph
from matrix.oracle.materialise import materialise
from matrix.proto import auth_cases
from matrix.proto.room_graph import ALL_VERSIONS
from matrix.proto.state_cases import VECTORS as STATE_VECTORS
from matrix.proto.state_cases import all_events, expected, load

pytestmark = pytest.mark.oracle

SEED = os.environ.get("HANSA_SEED", "1")
CASES = int(os.environ.get("HANSA_ORACLE_CASES", "2000"))
BATCH = 50

each_version = pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda v: f"v{v.id}")


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as running:
        yield running


def differences(graph: Graph, theirs: dict[str, Any]) -> Iterator[str]:
    """Yields the differences between the results of the oracle and of Hansa for one graph."""
    if theirs["ids"] != [pdu.event_id for pdu in graph.events]:
        yield "event ids differ"
        return
    for (index, rule), said in zip(graph.own.items(), theirs["own"], strict=True):
        if (rule is None) != (said is None):
            yield f"rules 1-3: {graph.events[index].raw}: ours {rule}, Synapse {said}"
    for (index, state, rule), said in zip(graph.state, theirs["state"], strict=True):
        if (rule is None) != (said is None):
            yield f"rules 4-11: {graph.events[index].raw} in {state}: ours {rule}, Synapse {said}"
    for (states, ours), said in zip(graph.resolve, theirs["resolved"], strict=True):
        if graph.numbers(ours) != said:
            yield f"resolution of {states}: ours {graph.numbers(ours)}, Synapse {said}"


@each_version
def test_random_rooms(oracle: Oracle, version: RoomVersion) -> None:
    print(f"HANSA_SEED={SEED} HANSA_ORACLE_CASES={CASES}")
    counts: Counter[str] = Counter()
    found: list[str] = []
    waiting: list[tuple[str, Graph]] = []
    for first in range(0, CASES + BATCH, BATCH):
        # The oracle judges one batch while the next is made.
        seeds = [f"{SEED}/{version.id}/{number}" for number in range(first, min(first + BATCH, CASES))]
        batch = [(seed, random_graph(version, seed)) for seed in seeds]
        if waiting:
            for (seed, graph), theirs in zip(waiting, oracle.collect()["graphs"], strict=True):
                found += [f"room {seed!r}: {difference}" for difference in differences(graph, theirs)]
                count(counts, graph)
        if batch:
            oracle.submit(op="graphs", graphs=[graph.request() for _, graph in batch])
        waiting = batch
    print(dict(counts))
    assert not found, f"{len(found)} differences, the first: {found[:3]}"
    assert counts["rooms"] == CASES
    if CASES >= 200:
        # The rooms are worth asking about: both answers to most rules, and resolutions with something to decide.
        assert counts["resolutions"] > 10 * CASES
        assert counts["conflicted"] > 5 * counts["resolutions"]
        assert counts["refused"] > 10 * CASES
        assert counts["accepted"] > 30 * CASES
        assert counts["with rejected events"] > CASES / 50


def count(counts: Counter[str], graph: Graph) -> None:
    refused = sum(rule is not None for _, _, rule in graph.state)
    counts["rooms"] += 1
    counts["events"] += len(graph.events)
    counts["refused"] += refused
    counts["accepted"] += len(graph.state) - refused
    counts["resolutions"] += len(graph.resolve)
    counts["with rejected events"] += bool(graph.rejected)
    for states, _ in graph.resolve:
        items = [set(state.items()) for state in states]
        counts["conflicted"] += len(set.union(*items) - set.intersection(*items))


@each_version
def test_vectors_of_state_resolution(oracle: Oracle, version: RoomVersion) -> None:
    graphs, answers = [], []
    for case in STATE_VECTORS["cases"]:
        if (
            version.id not in case["versions"]
            or not case.get("oracle", True)
            or case.get("symbolic_ids_matter")
        ):
            continue
        _, sets = load(version, case)
        made = materialise(version, all_events(version, case))
        names = list(made)
        graphs.append(
            {
                "version": version.id,
                "events": [pdu.raw for pdu in made.values()],
                "rejected": [names.index(name) for name in case.get("rejected", ())],
                "resolve": [[[names.index(name) for name in states.values()] for states in sets]],
            }
        )
        right = expected(version, {**case, "expect": case.get("oracle_expect", case["expect"])})
        answers.append((case["name"], sorted(right.values())))
        said = oracle.ask(op="graphs", graphs=graphs[-1:])["graphs"][0]
        resolved = sorted(names[index] for index in said["resolved"][0])
        assert resolved == answers[-1][1], case["name"]
    assert len(answers) > 15 or version.state_resolution == "1"


@each_version
def test_vectors_of_the_authorisation_rules(oracle: Oracle, version: RoomVersion) -> None:
    asked = []
    graphs = []
    for case in auth_cases.VECTORS["state"]:
        if version.id not in case["versions"] or case.get("synapse") == "skip":
            continue
        built = auth_cases.build(version, case)
        state = dict(built.state)
        events = [*sorted(state.values(), key=lambda pdu: pdu.type != "m.room.create"), built.pdu]
        made = list(materialise(version, events).values())
        question = [len(made) - 1, list(range(len(made) - 1))]
        graphs.append({"version": version.id, "events": [pdu.raw for pdu in made], "state": [question]})
        asked.append(case)
    replies = oracle.ask(op="graphs", graphs=graphs)["graphs"]
    wrong = []
    for case, reply in zip(asked, replies, strict=True):
        refused = case["rule"] is not None or case.get("synapse") == "reject"
        if refused != (reply["state"][0] is not None):
            wrong.append((case["name"], case["rule"], reply["state"][0]))
    assert not wrong
    assert len(asked) > 150


@each_version
def test_signatures_of_third_party_invites(oracle: Oracle, version: RoomVersion) -> None:
    keys = [SigningKey.from_seed(f"ed25519:{number}", bytes([number]) * 32) for number in range(3)]
    signed = {"mxid": "@d:w", "token": "tok"}
    signature = keys[1].sign(signable_bytes(signed))
    blocks = (
        {"id.example": {"ed25519:1": signature}},
        {"id.example": {"rsa:1": signature}},
        {"id.example": {}},
        {},
    )
    outcomes = set()
    for block in blocks:
        for public in ({"public_key": keys[1].public}, {"public_key": keys[2].public}, {}):
            for listed in ([], [keys[0].public, keys[1].public], [keys[0].public]):
                content = {**public, "public_keys": [{"public_key": key} for key in listed]}
                invite = {
                    "membership": "invite",
                    "third_party_invite": {"signed": {**signed, "signatures": block}},
                }
                event = {"type": "m.room.member", "sender": "@a:x", "state_key": "@d:w", "content": invite}
                case = {
                    "event": event,
                    "third_party_invites": {"tok": {"sender": "@a:x", "content": content}},
                }
                built = auth_cases.build(version, case)
                ok = third_party_verifier(verify_signature)
                ours = check_event_auth(built.pdu, built.state, version, third_party_ok=ok) is None
                made = list(materialise(version, [*built.state.values(), built.pdu]).values())
                question = [len(made) - 1, list(range(len(made) - 1))]
                graph = {"version": version.id, "events": [pdu.raw for pdu in made], "state": [question]}
                theirs = oracle.ask(op="graphs", graphs=[graph])["graphs"][0]["state"][0] is None
                assert ours == theirs, (block, content)
                outcomes.add(ours)
    assert outcomes == {True, False}


@each_version
def test_ids_hashes_and_redaction(oracle: Oracle, version: RoomVersion) -> None:
    graph = random_graph(version, f"{SEED}/ids/{version.id}")
    signed = {"signed": {"token": "t", "mxid": "@a:x"}, "display_name": "d"}
    odd: dict[str, Any] = {
        "third_party_invite": signed,
        "redacts": "$x",
        "aliases": ["#a:x"],
        "invite": 3,
        "history_visibility": "shared",
        "creator": "@a:x",
        "ban": 5,
        "text": 'é\u2028\U0001f600"\\\u0001',
        "deep": [[{"z": 1, "a": [None, True, -5, 2**53 - 1]}]],
    }
    if not version.strict_json:
        odd["lax"] = [1.5, 1e30, -0.0, 1e-7, 2**70, -(2**63)]
    top = {
        "origin": "x",
        "membership": "join",
        "prev_state": [],
        "unknown": {"b": 1, "a": 2},
        "unsigned": {"age": 4},
    }
    kinds = ("m.room.redaction", "m.room.aliases", "m.room.history_visibility", "m.room.third_party_invite")
    events = [dict(pdu.raw) for pdu in graph.events]
    events += [{**raw, **top, "content": {**raw["content"], **odd}} for raw in events]
    events += [{**events[-1], "type": kind} for kind in kinds]
    replies = oracle.ask(op="events", version=version.id, events=events)["answers"]
    for raw, reply in zip(events, replies, strict=True):
        assert reply["event_id"] == event_id(raw, version)
        assert reply["content_hash"] == content_hash(raw, version)
        ours = redact_event(raw, version)
        assert reply["redacted"] == ours


def spoilt(raw: dict[str, Any], random: Random) -> dict[str, Any]:
    """The event, mostly with something changed after it was hashed and signed."""
    signatures, hashes = raw["signatures"], raw["hashes"]
    signature, digest = signatures["x"]["ed25519:1"], hashes["sha256"]
    return random.choice(
        [
            raw,
            {**raw, "depth": raw["depth"] + 1},
            {**raw, "content": {**raw["content"], "y": 1}},
            {**raw, "origin": "x"},
            {**raw, "unsigned": {"age": 3}},
            {**raw, "hashes": {"sha256": digest + "="}},
            {**raw, "hashes": {"sha256": digest.replace("+", "-").replace("/", "_")}},
            {**raw, "hashes": {"sha256": digest[:-3] + "AAA"}},
            {**raw, "signatures": {"x": {"ed25519:1": signature[:-4] + "AAAA"}}},
            {**raw, "signatures": {"x": {"ed25519:1": signature + "=="}}},
            {**raw, "signatures": {"x": {"ed25519:2": signature}}},
            {**raw, "signatures": {**signatures, "y": {"ed25519:1": "AAAA"}}},
            {**raw, "signatures": {"y": signatures["x"]}},
        ]
    )


@each_version
def test_signatures_and_content_hashes(oracle: Oracle, version: RoomVersion) -> None:
    random = Random(f"{SEED}/signed/{version.id}")
    key = SigningKey.from_seed("ed25519:1", b"\x05" * 32)
    known = {("x", key.key_id): VerifyKey(public=key.public, valid_until=2**53 - 1)}
    events = []
    for pdu in random_graph(version, f"{SEED}/signed/{version.id}").events * 5:
        draft = {k: v for k, v in pdu.raw.items() if k not in {"hashes", "signatures"}}
        text = "".join(
            chr(random.choice([random.randrange(1, 0xD800), random.randrange(0xE000, 0x110000)]))
            for _ in range(5)
        )
        draft["content"] = {
            **draft["content"],
            text: [text, {"b": None, "a": random.randrange(-(2**53) + 1, 2**53)}],
        }
        events.append(spoilt(dict(hash_and_sign(draft, version, "x", (key.key_id, key.sign)).raw), random))
    replies = oracle.ask(op="events", version=version.id, events=events, key=["x", key.key_id, key.public])[
        "answers"
    ]
    outcomes = Counter[tuple[bool, bool]]()
    for raw, reply in zip(events, replies, strict=True):
        pdu = pdu_from_raw({k: v for k, v in raw.items() if k != "unsigned"}, version)
        signed = (
            signature_problem(pdu, version, lambda *name: known.get(name), verify_signature, {"x"}) is None
        )
        assert (hash_matches(raw, version), signed) == (reply["hash_ok"], reply["signed"]), raw
        assert reply["event_id"] == pdu.event_id
        outcomes[hash_matches(raw, version), signed] += 1
    assert len(outcomes) == 4, outcomes


def test_every_version_is_asked_about() -> None:
    assert {version.id for version in ALL_VERSIONS} == set(VERSIONS)
