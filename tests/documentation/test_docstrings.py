"""Every public name has a docstring; protocol code names the section of its specification."""

from __future__ import annotations

import ast
import inspect
import re
import tokenize
from collections.abc import Iterator
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
#: Words and phrases that read as translated. "There is no limit" and "is no longer" are English.
_ODD = re.compile(
    r"(?<!there )\b(?:is|are) no\b(?! longer| more than| less than)"
    r"|\b(?:whom|whomever|whoever|somebody|anybody|anew|to be had|do not do|does not do)\b"
    r"|\bof (?:ours|theirs|yours)\b|\bwhat [^.|\n]* is none\b",
    re.IGNORECASE,
)
PACKAGES = [ROOT / "core" / "hansa", *sorted((ROOT / "plugins").glob("*/hansa_*"))]
#: The modules that open with numbered steps, each of which names the file that takes it.
STORIES = [
    "core/hansa/bus/pipeline.py",
    "plugins/matrix/hansa_matrix/client_api/sync/sync.py",
    "plugins/matrix/hansa_matrix/federation/destination_queue.py",
    "plugins/matrix/hansa_matrix/rooms/inbound/missing_events.py",
    "plugins/matrix/hansa_matrix/rooms/inbound/pdu_staging.py",
    "plugins/matrix/hansa_matrix/rooms/pdu_receipt.py",
    "plugins/xmpp/hansa_xmpp/proto/muc.py",
]
FILE = re.compile(r"``([\w/]+\.py)``")
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


def missing_files(text: str, *folders: Path) -> list[str]:
    """The files that a text names and that none of the folders has."""
    return [name for name in FILE.findall(text) if not any((folder / name).is_file() for folder in folders)]


@pytest.mark.parametrize("name", STORIES)
def test_hard_modules_open_with_their_steps(name):
    text = ast.get_docstring(ast.parse((ROOT / name).read_text(encoding="utf-8")))
    steps = re.split(r"^(\d+)\. ", text, flags=re.MULTILINE)
    numbers, bodies = steps[1::2], steps[2::2]
    assert [int(number) for number in numbers] == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 5
    for body in bodies:
        assert FILE.search(body.split("\n\n")[0]), body


@pytest.mark.parametrize("package", PACKAGES, ids=shown)
def test_files_that_docstrings_name_exist(package):
    named = [
        (shown(path), name)
        for path in sorted(package.rglob("*.py"))
        for text in docstrings(path.read_text(encoding="utf-8"))
        for name in missing_files(text, path.parent, package, PACKAGES[0])
    ]
    assert named == []


def test_a_missing_file_is_found():
    text = "1. There (``bus/pipeline.py``). 2. Not there (``bus/no.py``)."
    assert missing_files(text, *PACKAGES) == ["bus/no.py"]


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


def prose(path: Path) -> Iterator[str]:
    """The docstrings of a module, without the code in them, and its comments."""
    for text in docstrings(path.read_text(encoding="utf-8")):
        yield re.sub(r"``[^`]*``", "``", text)
    with path.open("rb") as file:
        yield from (t.string for t in tokenize.tokenize(file.readline) if t.type == tokenize.COMMENT)


@pytest.mark.parametrize("tree", TREES)
def test_docstrings_and_comments_are_plain(tree):
    texts = [
        (shown(path), text)
        for path in sorted((ROOT / tree).rglob("*.py"))
        if path.parent != Path(__file__).parent
        for text in prose(path)
    ]
    assert texts
    assert [(where, text) for where, text in texts if _ODD.search(text)] == []


def test_odd_prose_is_found(tmp_path):
    file = tmp_path / "module.py"
    file.write_text('"""For somebody, with ``anew``."""\n\nX = 1  # one of ours\n')
    assert [mark[0] for text in prose(file) for mark in _ODD.finditer(text)] == ["somebody", "of ours"]


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
