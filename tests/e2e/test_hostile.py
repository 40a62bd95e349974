"""E9: hostile input against a running Hansa. Every attack gets its exact answer, again and again, and nobody in
another room notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from xml.etree import ElementTree as ET

import orjson
import pytest
import pytest_asyncio
from e2e import hostile_handshakes, hostile_http, hostile_pdus, hostile_xmpp
from e2e.fuzz import mutated_bytes, mutated_json
from e2e.hostile_suite import ROGUE, ROMEO, Case, HostileSuite, status_of
from hansa import RemoteProtocolError
from peers.fake_homeserver import V1, plain_http
from peers.require import require_prosody

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

CASES: list[Case] = [*hostile_http.CASES, *hostile_pdus.CASES, *hostile_handshakes.CASES, *hostile_xmpp.CASES]
PASSES = 5
#: Resident memory may grow by this much in the last two passes (KiB). Before, the process warms up: caches fill.
GROWTH = 3 * 1024
#: Seconds of random attacks of either kind.
FUZZ = 6.0


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def siege(ca, tmp_path_factory) -> AsyncIterator[HostileSuite]:
    require_prosody()
    found = HostileSuite(tmp_path_factory.mktemp("siege"), ca)
    async with found.cleanup:
        yield await found.start()


async def test_every_rule_has_a_name_of_its_own():
    twice = [name for name, count in Counter(case.name for case in CASES).items() if count > 1]
    assert not twice
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_answer(siege, case):
    assert await case.run(siege) == case.expected


async def test_again_and_again(siege):
    """The other passes, with people talking in the lobby before, during and after each."""
    before, sizes, wrong = await siege.metrics(), [siege.resident_kib()], []
    slow = asyncio.gather(_slow_head(siege), _slow_body(siege), _idle_tls(siege))
    for number in range(2, PASSES + 1):
        await siege.talk()
        for at, case in enumerate(CASES):
            if at % 100 == 50:
                await siege.talk()
            found = await case.run(siege)
            if found != case.expected:
                wrong.append(f"pass {number}, {case.name}: {found} instead of {case.expected}")
        await siege.talk()
        sizes.append(siege.resident_kib())
    assert not wrong, "\n".join(wrong)
    assert sizes[-1] - sizes[-3] < GROWTH, sizes
    assert await slow == ["closed", "408 M_UNKNOWN", "closed"]
    await _alive(siege, {})
    await _nothing_vanished(siege, before)


def _luck() -> random.Random:
    """Seeded by ``HANSA_SEED``; the seed is printed, and a failing test shows it."""
    seed = int(os.environ.get("HANSA_SEED") or secrets.randbits(32))
    print(f"HANSA_SEED={seed}")
    return random.Random(seed)


async def _alive(siege: HostileSuite, before: dict[str, float]) -> None:
    """Nothing broke, and people still hear each other."""
    after = await siege.metrics()
    for key in ("http_internal_errors", "matrix_pdus matrix failed"):
        assert after.get(key) == before.get(key), siege.hansa.log()[-5000:]
    networks = (await siege.hansa.run("status"))["networks"]
    assert {n["restarts"] for n in networks} == {0}, siege.hansa.log()[-5000:]
    await siege.talk()


async def test_mutated_requests_never_break_anything(siege):
    luck, before, mallory = _luck(), await siege.metrics(), siege.mallory
    until, count = time.monotonic() + FUZZ, 0
    while time.monotonic() < until:
        count += 1
        good = [mallory.message(siege.den, f"{count} {n}") for n in range(3)]
        body: Any = {"pdus": good, "edus": [{"edu_type": "m.typing", "content": {}}], "origin": mallory.name}
        match luck.randrange(4):
            case 0:  # signed again, so that its content is looked at
                draft = {k: v for k, v in good[1].items() if k not in {"hashes", "signatures"}}
                changed = mutated_json(draft, luck)
                if isinstance(changed, dict):
                    with contextlib.suppress(RemoteProtocolError):  # it has no form that could be signed
                        good[1] = mallory.finish(siege.den, changed)
            case 1:
                good[2] = mutated_json(good[2], luck)
            case _:
                body = mutated_json(body, luck)
        content = orjson.dumps(body)
        if luck.random() < 0.2:
            content = mutated_bytes(content, luck)
        target = f"/_matrix/federation/v1/send/{secrets.token_hex(8)}"
        if luck.random() < 0.2:
            target = luck.choice(
                [
                    f"/_matrix/federation/v1/get_missing_events/{siege.den.room_id}",
                    f"/_matrix/federation/v2/send_join/{siege.den.room_id}/$x",
                    f"/_matrix/federation/v2/invite/{siege.den.room_id}/$x",
                    "/_matrix/federation/v1/user/keys/query",
                ]
            )
        method = "POST" if "get_missing" in target or "keys" in target else "PUT"
        answer = await mallory.request(method, siege.name, target, content)
        assert answer.status < 500, (answer, content[:2000])
    print(f"{count} requests")
    await _alive(siege, before)


async def test_mutated_stanzas_never_break_anything(siege):
    """Only well-formed stanzas are mutated; others end the stream, which has its own cases."""
    luck, before, link = _luck(), await siege.metrics(), siege.link
    lives, until, count = link.connects, time.monotonic() + FUZZ, 0
    while time.monotonic() < until:
        for _ in range(20):
            data = mutated_bytes(luck.choice(hostile_xmpp.VALID), luck)
            try:
                ET.fromstring(b"<s xmlns='jabber:component:accept'>" + data + b"</s>")
            except (ET.ParseError, UnicodeDecodeError, LookupError):
                continue
            if b"<!" in data or b"<?" in data:
                continue
            link.send(data)
            count += 1
        await asyncio.sleep(0.01)
    name = f"ping{secrets.token_hex(4)}"
    link.send(f"<iq from='{ROMEO}' to='{ROGUE}' type='get' id='{name}'><ping xmlns='urn:xmpp:ping'/></iq>")
    await link.until("an answer", lambda: any(e.get("id") == name for e in link.stanzas), 20)
    print(f"{count} stanzas")
    assert link.connects == lives
    await _alive(siege, before)


async def test_the_log_gives_nothing_away(siege):
    """Neither a traceback nor a secret, after all of this."""
    log = siege.hansa.log()
    hidden = [siege.rogue.secret, siege.prosody.secret]
    hidden.append((siege.hansa.folder / "matrix.key").read_text().split()[2])
    for word in ("Traceback", "crashed", "Unhandled", "never retrieved", *hidden):
        assert word not in log, log[max(0, log.index(word) - 2000) : log.index(word) + 2000]


async def _slow_head(siege: HostileSuite) -> str:
    """A byte a second, for ever."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", siege.hansa.port, ssl=siege.mallory.trust, server_hostname="127.0.0.1"
    )
    writer.write(f"GET {V1}/version HTTP/1.1\r\nX: ".encode())
    ended = asyncio.ensure_future(reader.read())
    for _ in range(40):
        done, _ = await asyncio.wait({ended}, timeout=1)
        if done:
            break
        writer.write(b"a")
    writer.transport.abort()
    return "closed" if ended.done() else "still open"


async def _slow_body(siege: HostileSuite) -> str:
    """Chunks whose end never comes, behind a head that may go on."""
    target = f"{V1}/send/slow"
    signed = siege.mallory.signed("PUT", siege.name, target, b"{}")
    head = f"PUT {target} HTTP/1.1\r\nHost: h\r\nAuthorization: {signed}\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
    return status_of(await plain_http(siege.hansa.port, head.encode(), siege.mallory.trust, seconds=50))


async def _idle_tls(siege: HostileSuite) -> str:
    """Plain HTTP where TLS belongs."""
    reader, writer = await asyncio.open_connection("127.0.0.1", siege.hansa.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    async with asyncio.timeout(50):
        got = await reader.read(100)
    writer.close()
    return "closed" if b"HTTP" not in got else got.decode()


async def _nothing_vanished(siege: HostileSuite, before: dict[str, float]) -> None:
    """Every refusal is in a counter."""
    after = await siege.metrics()
    passes = PASSES - 1
    risen = {key: value - before.get(key, 0.0) for key, value in after.items()}
    refused = sum(1 for case in hostile_http.CASES if case.expected.startswith("401"))
    assert risen["http_refused 401"] >= passes * refused
    for key in ("http_malformed", "matrix_pdus matrix dropped", "matrix_pdus matrix rejected"):
        assert risen[key] >= passes, key
    for key in ("matrix_pdus matrix refused", "matrix_pdus matrix unknown_room", "xmpp_refused rogue excess"):
        assert risen[key] >= passes, key
    for why in ("improper-addressing", "invalid-from", "host-unknown", "unsupported-stanza-type"):
        assert risen[f"xmpp_dropped rogue {why}"] >= passes, why
