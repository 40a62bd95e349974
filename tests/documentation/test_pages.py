"""Pages point to what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from hansa import Crossing, NetworkContext, PluginContext

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("README.md")),
]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_anchors_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([\w-]+)\)", page.read_text(encoding="utf-8")):
        assert anchor in _anchors(page.parent / target if target else page), f"{target}#{anchor}"


def test_the_site_has_every_page_once():
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ +- (?:[^:]+: )?([\w/-]+\.md)$", site, flags=re.MULTILINE)
    beside = {"adr/index.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}
    assert sorted(listed) == sorted({path.name for path in (ROOT / "docs").glob("*.md")} | beside)


def test_metrics_that_the_pages_name_exist():
    """A count has the suffix ``_total``, and the name of its network may stand before it."""
    trees = [ROOT / "core/hansa", ROOT / "plugins"]
    sources = [path.read_text(encoding="utf-8") for tree in trees for path in sorted(tree.rglob("*.py"))]
    strings = set(re.findall(r"\"(\w+)\"", "".join(sources)))
    modules = {path.stem for path in (ROOT / "examples").glob("*/hansa_*")}
    modules |= {"hansa_lease", "hansa_matrix", "hansa_xmpp", "hansa_governance"}
    pages = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))]
    metrics = {name for page in pages for name in re.findall(r"\bhansa_\w+", page)} - modules
    assert len(metrics) > 40
    for metric in metrics:
        counter = metric.removesuffix("_total")
        counted = {
            metric,
            *(counter.removeprefix(before) for before in ("hansa_", "hansa_matrix_", "hansa_xmpp_")),
        }
        assert counted & strings, metric


def test_members_of_a_context_that_pages_name_exist():
    members = {
        name for kind in (PluginContext, NetworkContext) for name in [*dir(kind), *kind.__annotations__]
    }
    proposed = {page for page in PAGES if "**Status.** Proposed" in page.read_text(encoding="utf-8")}
    for page in set(PAGES) - proposed:
        for name in re.findall(r"\bctx\.(\w+)", page.read_text(encoding="utf-8")):
            assert name in members, f"{shown(page)}: ctx.{name}"


def test_files_that_the_architecture_names_exist():
    roots = [ROOT / "core/hansa", *(ROOT / "plugins").glob("*/hansa_*")]
    for name in re.findall(r"`([\w/]+\.py)`", ARCHITECTURE):
        assert any((root / name).exists() for root in roots), name


def test_the_methods_that_the_architecture_names_exist():
    import hansa.app
    import hansa.bus.admission
    import hansa.bus.pipeline

    owners = {
        "Admission": hansa.bus.admission.Admission,
        "Pipeline": hansa.bus.pipeline.Pipeline,
        "App": hansa.app.App,
    }
    for owner, method in re.findall(r"`(Admission|Pipeline|App)\.(\w+)`", ARCHITECTURE):
        known = owners[owner]
        assert hasattr(known, method), f"{owner}.{method}"


def test_every_crossing_is_named():
    for crossing in get_args(Crossing):
        assert f"`{crossing.__name__}`" in ARCHITECTURE


def test_decisions_are_numbered_short_and_titled():
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        lines = page.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(f"# {int(page.name[:4])}. ")
        assert len(lines) <= 60


def test_every_decision_says_whether_it_holds():
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    for page in pages:
        status = page.read_text(encoding="utf-8").splitlines()[2]
        held = re.fullmatch(
            r"\*\*Status\.\*\* (?:Accepted|Proposed|Superseded by (?P<by>.+?))\.(?: .+\.)?", status
        )
        assert held, f"{shown(page)}: {status}"
        if by := held["by"]:
            number = re.match(r"\[(\d+)\]\(", by)
            assert "`" in by or (number and 1 <= int(number[1]) <= len(pages)), f"{shown(page)}: {status}"


def _defined(page: Path) -> list[str]:
    """The first cells of the tables in a page."""
    return re.findall(r"^\| ?`?([\w ]+?)`? ?\|", page.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_words_of_the_house_are_defined_once():
    glossary = ROOT / "docs" / "glossary.md"
    head, *words = _defined(glossary)
    assert head == "word"
    assert words == sorted(set(words))
    house = [
        "room",
        "link",
        "authority",
        "crossing",
        "turn",
        "ghost",
        "puppet",
        "withheld",
        "hosted",
        "delivery",
    ]
    assert set(words) >= set(house)
    for line in glossary.read_text(encoding="utf-8").splitlines():
        assert len(line) <= 200, line
    for page in PAGES:
        if page != glossary:
            assert not set(house) & set(_defined(page)), shown(page)
    for page in (ROOT / "README.md", ROOT / "docs" / "index.md"):
        assert "glossary.md" in page.read_text(encoding="utf-8"), shown(page)


def test_the_readme_is_short_and_its_commands_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 150
    reference = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    commands = re.findall(r"^hansa ((?:[a-z]+ ?)+)", readme, flags=re.MULTILINE)
    assert len(commands) > 8
    known = set(re.findall(r"^## `hansa (?:matrix )?(.+?)`", reference, flags=re.MULTILINE))
    for command in commands:
        words = command.split()
        assert any(" ".join(words[:end]) in known for end in range(1, len(words) + 1)), command
    for script in re.findall(r"^\./(scripts/\w+)", readme, flags=re.MULTILINE):
        assert (ROOT / script).exists(), script
