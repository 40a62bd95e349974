"""The generated pages are up to date, and every entry has a description."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest
from hansa.api import hookspecs

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

HOOKS = [name for name in vars(hookspecs.Hooks) if not name.startswith("_")]


@pytest.mark.parametrize("page", reference.PAGES)
def test_a_generated_page_is_what_the_code_says(page):
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == reference.PAGES[page](), f"docs/{page} is stale: run scripts/reference.py"


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_says_what_it_is_and_what_it_is_given(hook):
    method = getattr(hookspecs.Hooks, hook)
    text = inspect.getdoc(method)
    assert text
    for argument in list(inspect.signature(method).parameters)[1:]:
        assert f":param {argument}: " in text


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_has_a_user_in_the_tree(hook):
    assert reference.users(hook)


def test_what_is_no_hook_has_no_user():
    assert reference.users("send") == []


def test_commands_and_their_arguments_have_help():
    found = list(reference.parsers(reference.cli._make_parser()))
    assert {"hansa run", "hansa deliveries retry", "hansa policy explain"} <= {words for words, _, _ in found}
    for words, text, parser in found:
        assert text, words
        for shown, about in reference.arguments(parser):
            assert about, f"{words} {shown}"


def test_settings_say_what_they_are():
    found = [
        (table, name, info)
        for table, model, _ in reference.tables()
        for name, info in reference.fields(model)
    ]
    assert {("[server]", "listen"), ('plugin = "xmpp"', "secret"), ("[networks.<id>]", "throttle.rate")} <= {
        (table, name) for table, name, _ in found
    }
    for table, name, info in found:
        assert info.description, f"{table} {name}"


def test_the_tables_are_all_there_are():
    from hansa.host import loader

    ours = {name for name, entries in loader.installed_plugins().items() if entries[0].dist.name == "hansa"}
    assert {f'plugin = "{name}"' for name in ours} == {
        t for t, _, _ in reference.tables() if t.startswith("plugin")
    }
