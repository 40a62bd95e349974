"""Every block of code in the page for plugin authors is a part of an example, or runs."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import tomllib
import types
from pathlib import Path

import hansa.testing
from hansa.cli import main
from hansa.config.settings import PolicyTable

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugin-author.md").read_text(encoding="utf-8")
BLOCKS = [
    (language, source, text)
    for language, source, text in re.findall(
        r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL
    )
]


def test_every_block_is_one_that_is_tested():
    assert PAGE.count("\n```") == 2 * len(BLOCKS)
    assert {language for language, _, _ in BLOCKS} == {"python", "toml", "sh"}
    assert len([1 for language, source, _ in BLOCKS if language == "python" and not source]) >= 4


def test_what_is_quoted_stands_in_the_examples():
    quoted = [(source, text) for _, source, text in BLOCKS if source]
    assert len(quoted) >= 8
    for source, text in quoted:
        assert source.startswith("examples/")
        whole = (ROOT / source).read_text(encoding="utf-8")
        assert f"\n{text}" in f"\n{whole}", f"{source} has changed; it no longer holds:\n{text}"


def test_what_is_not_quoted_runs(monkeypatch):
    # One module for all, as a reader would type it; the suite's classes must not be collected from here.
    module = types.ModuleType("plugin_author")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for number, (language, source, text) in enumerate(BLOCKS):
        if language == "python" and not source:
            exec(compile(text, f"docs/plugin-author.md, block {number}", "exec"), vars(module))


def test_configurations_have_only_settings_that_there_are(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "hansa-quiet-hours")
    quiet = importlib.import_module("hansa_quiet_hours")
    monkeypatch.delitem(sys.modules, "hansa_quiet_hours")
    configurations = [text for language, source, text in BLOCKS if language == "toml" and not source]
    assert configurations
    for text in configurations:
        (table,) = tomllib.loads(text)["policies"].values()
        mine = {key: value for key, value in table.items() if key in PolicyTable.model_fields}
        assert PolicyTable.model_validate(mine).plugin == "quiet-hours"
        quiet.Config.model_validate({key: value for key, value in table.items() if key not in mine})


def test_commands_are_commands():
    lines = [line for language, _, text in BLOCKS if language == "sh" for line in text.splitlines()]
    assert len(lines) >= 3
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "hansa"
        main._make_parser().parse_args(arguments)


def test_what_is_imported_is_public():
    for language, _, text in BLOCKS:
        if language != "python":
            continue
        for module, imported in re.findall(
            r"^from (hansa[\w.]*) import ([\w, ]+)$", text, flags=re.MULTILINE
        ):
            public = {"hansa": hansa.__all__, "hansa.testing": hansa.testing.__all__}.get(module)
            for name in imported.split(", "):
                assert public is None or name in public, f"{module}.{name}"


def test_every_name_in_the_text_exists():
    for name in re.findall(r"`([A-Z][A-Za-z]+)`", PAGE):
        known = hasattr(hansa, name) or name in {*hansa.testing.__all__, "Config", "FULL", "FALLBACK"}
        assert known, name
