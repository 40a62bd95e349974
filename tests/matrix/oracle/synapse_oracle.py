"""Answers, as Synapse would, questions about events. Runs under Synapse's own interpreter, as a program of its own.

One JSON object a line on stdin, one answer a line on stdout; ``ready`` first. An ``error`` key in the answer
means that the question was wrong. Requests, by ``op``:

- ``events``: ``version``, ``events``, ``key`` (``[server, key id, public key]``, if signatures matter) ->
  ``answers``, per event ``event_id``, ``content_hash``, ``redacted``, ``hash_ok`` and ``signed`` (do its content
  hash and that server's signature do), or ``error`` where Synapse does not take it for an event.
- ``graphs``: ``graphs``, each ``version``, ``events``, ``rejected`` (indices), ``own`` (indices: judge by the
  rules that need no state), ``state`` (``[index, [indices of the state]]``), ``resolve`` (lists of states, each
  a list of indices) -> ``graphs``, each ``ids``, ``own`` and ``state`` (null or why not), ``resolved`` (sorted
  lists of indices, or a text where the resolution raised), ``resolve_cpu`` (seconds of each).
"""

from __future__ import annotations

import json
import logging
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

from signedjson.key import decode_verify_key_bytes
from signedjson.sign import SignatureVerifyException, verify_signed_json
from synapse import event_auth
from synapse.api.errors import SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS, StateResolutionVersions
from synapse.crypto.event_signing import check_event_content_hash, compute_content_hash
from synapse.events import make_event_from_dict
from synapse.events.utils import prune_event
from synapse.state.v1 import resolve_events_with_store as resolve_v1
from synapse.state.v2 import resolve_events_with_store
from synapse.storage.databases.main.event_federation import StateDifference
from synapse_store import Database
from unpaddedbase64 import decode_base64, encode_base64


def run(coroutine: Any) -> Any:
    """The result of a coroutine that never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("the coroutine waits for something")


class NoClock:
    async def sleep(self, duration: Any) -> None:
        return None


class Room:
    """The events of one graph, as the store that Synapse's functions ask. What is asked of the auth graph goes
    to Synapse's own store and its database.
    """

    def __init__(self, graph: dict[str, Any], database: Database) -> None:
        self.version = KNOWN_ROOM_VERSIONS[graph["version"]]
        rejected = set(graph.get("rejected", ()))
        self.events = [
            make_event_from_dict(event, self.version, rejected_reason="auth" if i in rejected else None)
            for i, event in enumerate(graph["events"])
        ]
        self.ids = [event.event_id for event in self.events]
        self.by_id = {event.event_id: event for event in self.events}
        self.index = {event_id: i for i, event_id in enumerate(self.ids)}
        self.database = database

    async def get_events(self, event_ids: Any, *_: Any, **__: Any) -> dict[str, Any]:
        return {event_id: self.by_id[event_id] for event_id in event_ids if event_id in self.by_id}

    async def get_accepted(self, event_ids: Any) -> dict[str, Any]:
        found = {event_id: self.by_id[event_id] for event_id in event_ids}
        return {event_id: event for event_id, event in found.items() if not event.rejected_reason}

    async def get_auth_chain_difference(self, room_id: str, *question: Any) -> StateDifference:
        return await self.database.get_auth_chain_difference(room_id, *question)

    def own(self, index: int) -> str | None:
        try:
            run(event_auth.check_state_independent_auth_rules(self, self.events[index]))
        except SynapseError as refusal:
            return refusal.msg
        return None

    def state(self, index: int, state: list[int]) -> str | None:
        try:
            event_auth.check_state_dependent_auth_rules(self.events[index], [self.events[i] for i in state])
        except SynapseError as refusal:
            return refusal.msg
        return None

    def resolve(self, sets: list[list[int]]) -> list[int] | str:
        states = [{(e.type, e.state_key): e.event_id for e in map(self.events.__getitem__, s)} for s in sets]
        room_id = self.events[0].room_id
        try:
            if self.version.state_res == StateResolutionVersions.V1:
                result = run(resolve_v1(room_id, self.version, states, None, self.get_accepted))
                return sorted(self.index[event_id] for event_id in result.values())
            result = run(resolve_events_with_store(NoClock(), room_id, self.version, states, None, self))
        except SynapseError as refusal:
            return f"raised: {refusal.msg}"
        return sorted(self.index[event_id] for event_id in result.values())


def judge_graph(graph: dict[str, Any], database: Database) -> dict[str, Any]:
    room = Room(graph, database)
    resolved, seconds = [], []
    if graph.get("resolve"):
        with database.room(room.events[0].room_id, graph["version"], room.events):
            for sets in graph["resolve"]:
                before = process_time()
                resolved.append(room.resolve(sets))
                seconds.append(process_time() - before)
    return {
        "ids": room.ids,
        "own": [room.own(index) for index in graph.get("own", ())],
        "state": [room.state(index, state) for index, state in graph.get("state", ())],
        "resolved": resolved,
        "resolve_cpu": seconds,
    }


def signature_does(redacted: dict[str, Any], server: str, key_id: str, public: str) -> bool:
    try:
        verify_signed_json(redacted, server, decode_verify_key_bytes(key_id, decode_base64(public)))
    except SignatureVerifyException:
        return False
    return True


def describe(raw: dict[str, Any], version: str, key: list[str] | None) -> dict[str, Any]:
    try:
        event = make_event_from_dict(raw, KNOWN_ROOM_VERSIONS[version])
    except SynapseError as refusal:
        return {"error": refusal.msg}
    _, digest = compute_content_hash(event.get_pdu_json(), sha256)
    redacted = prune_event(event).get_pdu_json()
    redacted.pop("unsigned", None)
    return {
        "event_id": event.event_id,
        "content_hash": encode_base64(digest),
        "redacted": redacted,
    } | (
        {"hash_ok": check_event_content_hash(event), "signed": signature_does(redacted, *key)} if key else {}
    )


def answer(request: dict[str, Any], database: Database) -> dict[str, Any]:
    if request["op"] == "events":
        key = request.get("key")
        return {"answers": [describe(raw, request["version"], key) for raw in request["events"]]}
    if request["op"] == "graphs":
        return {"graphs": [judge_graph(graph, database) for graph in request["graphs"]]}
    raise KeyError(request["op"])


def main() -> None:
    logging.disable(logging.CRITICAL)
    with TemporaryDirectory() as folder:
        database = Database(Path(folder))
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            try:
                reply = answer(json.loads(line), database)
            except Exception as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
