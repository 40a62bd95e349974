"""From a server name to a route, by the transcripts of tests/vectors/discovery.json."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import Any

import pytest
from hansa import SrvRecord, order_srv
from hansa.model.errors import RemoteProtocolError
from hansa_matrix.proto.servers.discovery import (
    MAX_WELL_KNOWN,
    Command,
    Discovery,
    FetchWellKnown,
    LookUpSrv,
    ResolvedServer,
    parse_well_known,
)
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.vectors import each, vectors

V = vectors("discovery.json")


def answered(discovery: Discovery, command: Command, step: dict[str, Any]) -> Command:
    if "well_known" in step:
        assert command == FetchWellKnown(step["well_known"])
        body = step["answer"]
        return discovery.on_well_known(None if body is None else body.encode())
    assert command == LookUpSrv(step["srv"])
    return discovery.on_srv([SrvRecord(*record) for record in step["answer"]])


@each(V["cases"])
def test_transcripts(case: dict[str, Any]) -> None:
    discovery = Discovery(case["server"], lambda: 0.5)
    command = discovery.first_command()
    for step in case["steps"]:
        command = answered(discovery, command, step)
    route = case["route"]
    assert command == ResolvedServer(
        targets=tuple((host, port) for host, port in route["targets"]),
        host_header=route["host"],
        tls_name=route["certificate"],
    )


@each(V["refused"])
def test_names_to_which_nothing_is_connected(case: str) -> None:
    with pytest.raises(RemoteProtocolError):
        Discovery(case, lambda: 0.5).first_command()


@each(V["weights"])
def test_weights(case: dict[str, Any]) -> None:
    chances = iter(case["chances"])
    ordered = order_srv([SrvRecord(*record) for record in case["records"]], lambda: next(chances))
    assert [record.target for record in ordered] == case["order"]


def test_a_well_known_of_the_most_bytes_is_read() -> None:
    body = b'{"m.server":"b.example","x":"' + b"x" * (MAX_WELL_KNOWN - 31) + b'"}'
    assert len(body) == MAX_WELL_KNOWN
    assert parse_well_known(body) == "b.example"
    assert parse_well_known(body + b" ") is None


def test_heavy_records_come_first_more_often() -> None:
    random = Random(1)
    records = [SrvRecord(1, 1, 1, "light"), SrvRecord(1, 9, 2, "heavy")]
    firsts = [order_srv(records, random.random)[0].target for _ in range(1000)]
    assert 850 < firsts.count("heavy") < 950


srv_records = st.builds(
    SrvRecord,
    st.integers(0, 3),
    st.integers(0, 65535),
    st.integers(-1, 70000),
    st.sampled_from(["", ".", "h", "h.example.", "g.example"]),
)


@given(st.lists(srv_records, max_size=8), st.integers(0, 2**32))
def test_every_record_is_tried_once(records: list[SrvRecord], seed: int) -> None:
    ordered = order_srv(records, Random(seed).random)
    assert sorted(ordered, key=repr) == sorted(records, key=repr)
    assert [r.priority for r in ordered] == sorted(r.priority for r in records)


@given(st.binary(max_size=60) | st.none(), st.lists(st.lists(srv_records, max_size=3), max_size=2))
def test_whatever_is_answered_there_is_a_route(body: bytes | None, looked_up: list[list[SrvRecord]]) -> None:
    discovery = Discovery("a.example", lambda: 0.5)
    command = discovery.first_command()
    answers = iter(looked_up)
    for steps in count():
        assert steps < 4
        if isinstance(command, ResolvedServer):
            break
        if isinstance(command, FetchWellKnown):
            command = discovery.on_well_known(body)
        else:
            command = discovery.on_srv(next(answers, []))
    assert command.targets
    assert all(host and 0 < port < 65536 for host, port in command.targets)
