"""Words of others in every field of every answer: each command prints as many lines as it would of good words,
and none of them moves, hides or forges anything.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from core.test_printable import EVIL, FORGED, HARMFUL
from hansa import terminal
from hansa.cli import show
from hansa.cli.main import _make_parser, commands_of
from hansa.host import loader
from hansa.logs import MARK, log_to
from hansa.model.commands import format_pairs, format_table
from hansa.model.printable import columns, printable

WIDE, LONG = "日本語" * 40 + "👩\u200d🚀", "x" * 1_000_000
HOSTILE = {"controls": EVIL, "wide": WIDE, "long": LONG, "marks": "a\u0300" * 5_000}
WORD = "word"

_LINK = {"link": WORD, "direction": WORD, "hosted": True, "authority": False, "delivered": 3, "reason": WORD}
_ROOM = {
    "room": WORD,
    "name": WORD,
    "addresses": [WORD, WORD],
    "events": 1,
    "joined": 2,
    "links": [_LINK, _LINK],
}
_REASON = {"code": WORD, "policy": WORD, "rule": WORD, "text": WORD, "admin_text": WORD}
_DECISION = {
    "id": WORD, "ts": 1, "last": 2, "count": 3, "mode": "enforce", "action": WORD, "would": WORD,
    "reasons": [_REASON], "would_reasons": [_REASON], "facts": {"crossing": WORD, "server": WORD, "texts": [WORD]},
}  # fmt: skip
_FACTS_KEYED = {**_DECISION, "facts": {"crossing": WORD, "named": WORD}}
#: An answer of each way of showing one. What answers with keys and values alone is shown by ``plain``.
CORE: dict[str, list[Any]] = {
    "status": [
        {"state": "up", "store": {"state": "up"}, "networks": [{"id": WORD, "state": WORD, "text": WORD, "restarts": 1}],
         "policies": [{"name": WORD, "shadow": True}], "rooms": 1},
        {"state": "degraded", "store": {"state": "degraded", "kind": WORD, "since": 1, "text": WORD}, "networks": [],
         "policies": [], "rooms": 1},
    ],
    "plugins": [[{"name": WORD, "module": WORD, "distributions": [WORD], "versions": [WORD], "enabled": [WORD]}]],
    "format_pairs": [{"a": WORD, "b": [WORD, WORD], "c": {"d": WORD}, "e": None, "f": True}],
    "matches": [
        [{"person": WORD, "name": WORD}],
        [{"room": WORD, "name": WORD, "members": 1, "topic": WORD}],
    ],
    "where": [{"event": WORD, "room": WORD, "seq": 1, "sender": WORD, "content": WORD, "destinations": [
        {"destination": WORD, "state": WORD, "since": 5, "reason": WORD}]}],
    "rooms": [[_ROOM, _ROOM]],
    "room": [{**_ROOM, "topic": WORD, "join_rule": WORD, "version": WORD, "people": [
        {"user": WORD, "membership": WORD, "name": WORD, "role": WORD, "server": WORD}],
        "denied": [{"network": WORD, "server": WORD, "because": WORD}]}],
    "deliveries": [[{"destination": WORD, "waiting": 1, "since": 1, "reason": WORD, "dead": [{"seq": 1, "reason": WORD}]}]],
    "tested": [{"action": WORD, "facts": {}, "out": {"a": WORD}, "policies": [
        {"policy": WORD, "way": WORD, "shadow": False, "action": WORD, "reasons": [WORD], "failed": WORD}]}],
    "decisions": [[_DECISION, {**_DECISION, "mode": "shadow"}]],
    "explanation": [_DECISION, {**_DECISION, "mode": "shadow"}],
}  # fmt: skip
MATRIX: dict[str, list[Any]] = {
    "keys ls": [[{"key": WORD, "public": WORD, "expired": 0}, {"key": WORD, "public": WORD, "expired": 5}]],
    "doctor": [{"server": WORD, "healthy": False, "findings": [
        {"state": WORD, "check": WORD, "text": WORD, "advice": WORD}]}],
    "destinations ls": [[{"name": WORD, "state": WORD, "waiting": 1, "failures": 1, "since": 5, "reason": WORD}]],
    "rooms stuck": [[{"event": WORD, "origin": WORD, "attempts": 1}]],
    "invites ls": [[{"user": WORD, "is": WORD, "room": WORD, "by": WORD, "server": WORD}]],
    "rooms check": [{"room": WORD, "events": 1, "extremities": 1, "statuses": {"a": 1}, "missing_prev": [WORD],
        "missing_auth": [WORD], "missing_state": [WORD], "rejected": {"b": WORD},
        "holes": [{"event": WORD, "why": WORD, "servers": [], "asked": [WORD], "attempts": 1}]}],
    "rooms backfill": [{"room": WORD, "events": 1, "failed": {"s": WORD}, "complete": False}],
    "user ls": [[{"user": WORD, "admin": False, "deactivated": False, "devices": 1, "created": 1}]],
    "tokens ls": [[{"token": WORD, "used": 1, "uses": 0}]],
    "reports ls": [[{"at": 1, "by": WORD, "event": WORD, "reason": WORD}]],
    "media ls": [[{"media": WORD, "size": 1, "type": WORD, "name": WORD, "used": 1}]],
    "rooms ls": [[{"room": WORD, "version": WORD, "resident": True, "extremities": 1, "waiting": 1}]],
}  # fmt: skip
CASES = [
    *((f"hansa {name}", getattr(show, name), answer) for name, found in CORE.items() for answer in found),
    *(
        (f"hansa matrix {c.words}", c.show, answer)
        for c in commands_of("matrix")
        for answer in MATRIX.get(c.words, CORE["format_pairs"])
    ),
]


def _with(value: Any, text: str) -> Any:
    """The same answer with other words; names of members, which others may choose too, where no command looks
    for them.
    """
    if isinstance(value, dict):
        return {key: _with(one, text) for key, one in value.items()}
    if isinstance(value, list):
        return [_with(one, text) for one in value]
    return text if value == WORD else value


def test_every_way_to_show_an_answer_is_in_the_table():
    shown = {n for n in show.__all__ if n not in {"format_pairs", "format_table"}}
    assert shown <= set(CORE)
    for plugin in loader.installed_plugins():
        for command in commands_of(plugin):
            assert command.show is format_pairs or (plugin == "matrix" and command.words in MATRIX), (
                command.words
            )
    asked = {name for group in ("rooms", "deliveries", "policy") for name in _actions(group)}
    assert asked == {"ls", "show", "create", "link", "unlink", "retry", "drop", "test", "explain", "log"}


def _actions(command: str) -> list[str]:
    top = next(a for a in _make_parser()._actions if a.dest == "command")
    return list(next(a for a in top.choices[command]._actions if a.dest == "action").choices)


@pytest.mark.parametrize(("name", "shown", "answer"), CASES, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize("kind", HOSTILE)
def test_every_command_prints_words_of_others_as_words(kind, name, shown, answer, capsys):
    terminal.show(_with(answer, WORD), shown)
    harmless = capsys.readouterr().out
    terminal.show(_with(answer, HOSTILE[kind]), shown)
    said = capsys.readouterr().out
    assert not HARMFUL.search(said), name
    assert said.count("\n") == harmless.count("\n"), name
    assert not any(line.startswith(FORGED) for line in said.splitlines()), name
    assert len(said) < 100_000, name
    terminal.show_json(_with(answer, HOSTILE[kind]))
    printed = capsys.readouterr().out
    assert printed.isascii() and not HARMFUL.search(printed)
    assert json.loads(printed) == _with(answer, HOSTILE[kind])


@pytest.mark.parametrize("answer", [_FACTS_KEYED, {"named": 1}])
def test_names_of_members_are_words_of_others_too(answer, capsys):
    evil = json.loads(json.dumps(answer).replace("named", json.dumps(EVIL)[1:-1]))
    terminal.show(evil, show.explanation if "facts" in answer else format_pairs)
    said = capsys.readouterr().out
    assert "\\x1b[2J" in said and not HARMFUL.search(said) and f"\n{FORGED}" not in said


def test_columns_are_straight_whatever_the_script():
    rows = [["日本語", "end"], ["a\u0300bc", "end"], ["👩\u200d🚀", "end"], ["plain", "end"]]
    lines = format_table(["head", "more"], rows).splitlines()
    assert {columns(line.partition("end")[0]) for line in lines[1:]} == {
        columns(lines[0].partition("more")[0])
    }
    cut = format_table(["a", "b"], [["x" * 5_000, "y"]]).splitlines()[1]
    assert len(cut) < 400 and "…" in cut and cut.endswith("y")


@pytest.fixture
def logged() -> Iterator[Callable[..., str]]:
    """Captures the log of the process, formatted as in a real run."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.raiseExceptions)
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    out = io.StringIO()
    log_to(out, logging.INFO)
    yield out.getvalue
    root.handlers[:], root.level, logging.raiseExceptions = before
    logging.captureWarnings(capture=False)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


@pytest.mark.parametrize(
    "name",
    ["aiohttp.access", "aiohttp.server", "aiohttp.web", "asyncio", "slixmpp", "slixmpp.xmlstream", "pymongo.command",
     "motor", "PIL.Image", "py.warnings", "concurrent.futures", "hansa.http", EVIL],
)  # fmt: skip
@pytest.mark.parametrize("text", [EVIL, WIDE, LONG], ids=["controls", "wide", "long"])
def test_a_record_of_any_library_is_one_line(logged, name, text):
    logger = logging.getLogger(name)
    logger.warning("%s said %r in %s", text, text, {"k": text})
    logger.warning("%d", text)  # cannot be formatted: left out, not printed as it is
    try:
        raise ValueError(text)
    except ValueError as error:
        logger.exception("failed: %s", error, stack_info=True)
    said = logged()
    assert not HARMFUL.search(said)
    assert len([line for line in said.splitlines() if not line.startswith(MARK)]) == 2
    assert not any(line.startswith(FORGED) for line in said.splitlines())
    assert max(map(len, said.splitlines())) < 5_000


class _Falls:
    def __del__(self) -> None:
        raise ValueError(EVIL)


def test_what_crashes_beside_the_loop_is_in_the_log_and_nowhere_else(logged):
    def fall() -> None:
        raise ValueError(EVIL)

    thread = threading.Thread(target=fall, name=EVIL)
    thread.start()
    thread.join()
    _Falls()
    sys.excepthook(ValueError, ValueError(EVIL), None)
    said = logged()
    assert not HARMFUL.search(said)
    assert len([line for line in said.splitlines() if not line.startswith(MARK)]) == 3
    assert "crashed" in said and printable(EVIL)[:10] in said


def test_a_bare_warning_is_a_record(logged):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(EVIL, stacklevel=1)
    assert not HARMFUL.search(logged())
