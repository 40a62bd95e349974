"""Every public name has a docstring; protocol code names the section of its specification."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import hansa
import hansa.testing
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for root in ("core", "plugins") for p in (ROOT / root).rglob("*.py"))
#: Where docstrings are held to open with their subject.
TREES = ("core", "plugins", "tests", "bench", "examples", "scripts")
#: A relative clause in place of a noun or a verb.
CLAUSE = re.compile(r"(?:What|Who|Whose|Whom|Which|Whether|Whoever|Whatever)\b")
PROTOCOL = [p for p in SOURCES if p.parent.name == "proto" and p.name != "__init__.py"]
#: A section by number or appendix, or by its title where the specification has no numbers.
SECTION = {
    "hansa_matrix": re.compile(r"SPEC: .*?(\"[^\"]+\"|rule \d)", re.DOTALL),
    "hansa_xmpp": re.compile(
        r"SPEC: .*?(RFC \d{4}|XEP-\d{4}|XML 1\.0) (and )?(section|appendix)s? [\dA-Z]", re.DOTALL
    ),
}


def shown(path):
    return path.relative_to(ROOT).as_posix()


def bare(path: Path) -> list[str]:
    """Returns the public names of a module that have no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [] if ast.get_docstring(tree) else ["the module"]

    def look(node: ast.Module | ast.ClassDef, before: str) -> None:
        for child in node.body:
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if child.name.startswith("_"):
                continue
            if not ast.get_docstring(child):
                found.append(before + child.name)
            if isinstance(child, ast.ClassDef):
                look(child, f"{before}{child.name}.")

    look(tree, "")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_everything_public_has_a_docstring(path):
    assert bare(path) == []


def test_what_is_bare_is_found(tmp_path):
    file = tmp_path / "bare.py"
    file.write_text(
        'def f():\n    """Words."""\n\nclass C:\n    """Words."""\n    async def m(self): ...\n    def _n(self): ...\n'
    )
    assert bare(file) == ["the module", "C.m"]


def docstrings(source: str) -> list[str]:
    """Every docstring of a module, of its classes and of its functions."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


def test_docstrings_open_with_their_subject():
    texts = [
        (shown(path), text)
        for tree in TREES
        for path in sorted((ROOT / tree).rglob("*.py"))
        for text in docstrings(path.read_text(encoding="utf-8"))
    ]
    clauses = [(where, text) for where, text in texts if CLAUSE.match(text)]
    assert len(texts) > 5000
    assert len(clauses) < 0.02 * len(texts), clauses


def test_docstrings_that_open_with_a_clause_are_found():
    source = '"""What it is."""\ndef f():\n    """Whether it is."""\nclass C:\n    """The class."""\n'
    assert [bool(CLAUSE.match(text)) for text in docstrings(source)] == [True, True, False]


@pytest.mark.parametrize("module", [hansa, hansa.testing], ids=lambda module: module.__name__)
def test_every_name_of_the_public_surface_is_there_and_explained(module):
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            text = inspect.getdoc(thing)
            assert text, name
            assert not text.startswith(f"{name}("), f"{name} has only the docstring that a dataclass makes"


@pytest.mark.parametrize("path", PROTOCOL, ids=shown)
def test_protocol_code_names_the_section_of_its_specification(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert SECTION[path.parents[1].name].search(text), text


def test_both_protocols_are_looked_at():
    assert {path.parents[1].name for path in PROTOCOL} == set(SECTION)
