"""``hansa plugin new``: a distribution with a plugin that runs, and with tests that pass as they are written.

The texts are files of ``templates``. In them ``@NAME@`` is the name of the plugin, ``@MODULE@`` its package,
``@CLASS@`` its class and ``@TABLE@`` its name where a table of the configuration is named after it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hansa.model.errors import LocalProtocolError

#: Characters that the name of a plugin may have.
MAX_NAME = 40
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
#: Words that the core itself uses as the name of a network.
_RESERVED = frozenset({"hansa", "media", "testing"})
_KINDS = ("network", "policy", "observer")


def add_parsers(top: Any) -> None:
    """Adds `plugin` and its action to the command line."""
    actions = top.add_parser("plugin", help="write a plugin of your own").add_subparsers(
        dest="action", required=True
    )
    new = actions.add_parser("new", help="write a plugin that runs, with tests, in a folder of its own")
    new.add_argument("name", help="its name, as the configuration will have it: letters, digits and hyphens")
    kind = new.add_mutually_exclusive_group(required=True)
    kind.add_argument("--network", dest="kind", action="store_const", const="network", help="a network")
    kind.add_argument("--policy", dest="kind", action="store_const", const="policy", help="a policy")
    kind.add_argument(
        "--observer",
        dest="kind",
        action="store_const",
        const="observer",
        help="an observer, which sees events and judges nothing",
    )
    new.add_argument(
        "--into", type=Path, default=Path(), help="where its folder is created (default: this folder)"
    )


def write_plugin(name: str, kind: str, into: Path, taken: Mapping[str, str]) -> str:
    """Writes ``into/hansa-NAME``, and returns the next commands. ``taken`` says by name what has it already.
    Raises LocalProtocolError, and then nothing is written.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise LocalProtocolError(
            f"{name!r} cannot be the name of a plugin: use lower case letters and digits, in words joined by "
            f"hyphens, {MAX_NAME} characters at most"
        )
    if name in _RESERVED or name in taken:
        raise LocalProtocolError(f"{name} is taken: it is {taken.get(name, 'a word of Hansa itself')}")
    module = "hansa_" + name.replace("-", "_")
    words = {
        "@NAME@": name,
        "@MODULE@": module,
        "@CLASS@": "".join(word.capitalize() for word in name.split("-")),
        "@TABLE@": name.replace("-", "_"),
    }
    folder = into / f"hansa-{name}"
    into.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        raise LocalProtocolError(f"{folder} exists already: nothing was written") from None
    try:
        for source in ("shared", kind):
            _write_tree(resources.files("hansa.cli") / "templates" / source, folder, words)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return (
        f"{folder} has a plugin that runs. Next:\n"
        f"  python -m pip install --editable '{folder}[test]'\n"
        f"  python -m pytest {folder}\n"
    )


def _write_tree(source: Traversable, target: Path, words: Mapping[str, str]) -> None:
    """Writes the files of a template. Their names have the words too, and end with ``.tmpl``."""
    for entry in source.iterdir():
        path = target / _fill(entry.name.removesuffix(".tmpl"), words)
        if entry.is_dir():
            path.mkdir(exist_ok=True)
            _write_tree(entry, path, words)
        elif entry.name.endswith(".tmpl"):
            with path.open("x", encoding="utf-8") as file:
                file.write(_fill(entry.read_text(encoding="utf-8"), words))


def _fill(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text
