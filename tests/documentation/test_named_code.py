"""Docstrings and comments name code that exists."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = {
    file: ast.parse(file.read_text())
    for base in ("core", "plugins")
    for file in sorted((ROOT / base).rglob("*.py"))
}
#: ``word``, ``module.word`` or ``Class.word``, with or without ``()``.
NAME = re.compile(r"``([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(\))?``")
#: What refers the reader to another definition of the same module.
REFERENCE = re.compile(r"\b(?:As(?: in)?|[Ss]ee) ``([a-z_]\w*)``")
#: What has the shape of such a name, and is of others: HTTP, JSON, a file, a domain, an event's content, a value.
FOREIGN = {
    *("NaN", "Location", "Host", "Range"),
    *("hansa.db", "matrix.to", "content.creator", "plugin.Config", "loop.call_later"),
}


def _bound(tree: ast.AST) -> set[str]:
    """Every name that a module defines, imports, or uses as an attribute, argument or keyword."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                names.add(name)
            case ast.alias(name=name, asname=other):
                names.update((other or name).split("."))
            case ast.keyword(arg=str(name)):
                names.add(name)
    return names


BOUND = {file: _bound(tree) for file, tree in SOURCES.items()}
ANYWHERE = set().union(*BOUND.values())


def _modules() -> dict[str, set[str]]:
    """By a module's or package's own name: the names in it, and the modules below it."""
    names: dict[str, set[str]] = defaultdict(set)
    for file, bound in BOUND.items():
        names[file.parent.name if file.stem == "__init__" else file.stem] |= bound
        names[file.parent.name].add(file.stem)
        names[file.parent.parent.name].add(file.parent.name)
    return names


MODULES = _modules()


def _prose(text: str) -> Iterator[str]:
    """Docstrings and comments; those of several lines as one text."""
    comments: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.append(token.string.lstrip("#: "))
        elif token.type == tokenize.STRING and token.string.startswith('"""'):
            yield " ".join(token.string.split())
        elif token.type not in {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}:
            yield " ".join(comments)
            comments = []
    yield " ".join(comments)


def lost_names(text: str, bound: set[str]) -> set[str]:
    """The names in the prose of a module that lead nowhere."""
    lost: set[str] = set()
    for prose in _prose(text):
        for name in set(NAME.findall(prose)) - FOREIGN:
            head, _, tail = name.partition(".")
            no_class = bool(re.fullmatch(r"[A-Z][a-z]+\w*", head)) and head not in ANYWHERE
            not_in_module = tail not in {"", "py"} and tail.split(".")[0] not in MODULES.get(
                head, {tail.split(".")[0]}
            )
            if no_class or not_in_module:
                lost.add(name)
        lost.update(name for name in REFERENCE.findall(prose) if name not in bound | MODULES.keys())
    return lost


def test_what_docstrings_and_comments_name_exists():
    found = {
        str(file.relative_to(ROOT)): sorted(lost)
        for file, bound in BOUND.items()
        if (lost := lost_names(file.read_text(), bound))
    }
    assert found == {}


def test_a_name_of_the_past_is_found():
    text = '"""As ``gone_by``, see ``room.aliases`` and ``v2.resolve``; raises ``Refused``."""\n#: See ``lost_one``.\nX = 1\n'
    assert lost_names(text, {"X"}) == {"gone_by", "room.aliases", "v2.resolve", "Refused", "lost_one"}
