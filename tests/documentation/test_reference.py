"""The generated pages are up to date, and every entry has a description."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections import Counter
from pathlib import Path

import hansa
import pytest
from hansa.api import context, hookspecs

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


def headings() -> list[str]:
    return re.findall(r"^### `(\w+)`$", reference.PAGES["hooks.md"](), flags=re.MULTILINE)


def test_every_public_name_is_described_once():
    found = Counter(headings())
    assert not set(hansa.__all__) - set(found) - {"API"}, "public, and not in docs/hooks.md"
    assert not [name for name, count in found.items() if count > 1]


def test_whatever_a_context_has_or_takes_is_described():
    source = inspect.getsource(context)
    code = re.sub(r'"""[\s\S]*?"""', "", source[source.index("class PluginContext") :])
    named = set(re.findall(r"\b[A-Z]\w*[a-z]\w*\b", code))
    not_ours = {
        "Any",
        "AsyncIterator",
        "False",
        "Literal",
        "Logger",
        "None",
        "Protocol",
        "Sequence",
        "Task",
        "True",
        "Work",
    }
    assert {"Submission", "ScopedBlobs"} <= named
    assert not named - not_ours - set(headings())


def test_a_property_is_written_as_one_and_a_method_with_its_signature():
    page = reference.PAGES["hooks.md"]()
    assert "- `inward: bool` (property)" in page and "def inward" not in page
    assert "- `policy_generation: int` (property)" in page
    assert "- `async def scan(" in page
    assert 'MESSAGE = "message"' in page, "the members of an enumeration"
    assert "#: Missed while we were away" in page, "what a member means"
    assert "RetryLater(reason: str, *, after: float=0.0)" in page


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
