"""Hooks of MkDocs: pages that stand outside ``docs/``, and what differs between the site and the files.

The files are written to be read in the repository too. Links to a page of the site stay links. Links to other
files of the repository become the names of the files, because the site has no copy of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[\w-]+)?\)")
_FENCE_WITH_FILE = re.compile(r"^```(\w+) file=(\S+)$", re.MULTILINE)


def _decisions() -> str:
    rows = []
    for page in sorted((ROOT / "docs" / "adr").glob("*.md")):
        lines = page.read_text(encoding="utf-8").splitlines()
        number, title = lines[0].removeprefix("# ").split(". ", 1)
        status = lines[2].removeprefix("**Status.** ").partition(".")[0]
        rows.append(f"| {number} | [{title}]({page.name}) | {status} |")
    return "\n".join(["# Decisions", "", "| number | decision | status |", "|---|---|---|", *rows, ""])


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of the repository's root, and a list of the decisions."""
    for name in PAGES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    files.append(File.generated(config, "adr/index.md", content=_decisions()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001 # MkDocs passes it by name
    """Links and code blocks as the site understands them."""
    folder = (Path(page.file.src_uri).parent if page.file.src_uri not in PAGES else Path("..")).as_posix()

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        if "://" in target:
            return found[0]
        path = (ROOT / "docs" / folder / target).resolve().relative_to(ROOT)
        if not (ROOT / path).exists():
            return found[0]  # MkDocs reports it
        if path.as_posix() == "docs/adr":
            path = Path("docs/adr/index.md")
        uri = path.as_posix() if path.name in PAGES else path.as_posix().removeprefix("docs/")
        if files.get_file_from_path(uri) is None or (path.parts[0] != "docs" and path.name not in PAGES):
            return text if text.startswith("`") else f"{text} (`{path.as_posix()}`)"
        up = "../" * (len(Path(page.file.src_uri).parts) - 1)
        return f"[{text}]({up}{uri}{anchor})"

    markdown = _LINK.sub(link, markdown)
    return _FENCE_WITH_FILE.sub(r'```\1 title="\2"', markdown)
