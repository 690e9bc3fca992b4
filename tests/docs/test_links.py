"""Links: those within the tree lead somewhere, those to the world are well formed.

Sphinx holds the links between the pages of docs/. Nothing here asks the world: tests are loopback
only, so a page that moved elsewhere is not noticed.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
BESIDE = [*sorted(ROOT.glob("examples/*/README.md")), ROOT / "docker" / "README.md"]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*TOP, *BESIDE, *DOCS]

CODE = re.compile(r"(?ms)^```.*?^```$|`[^`\n]*`")
LINK = re.compile(r"!?\[[^]]*\]\(\s*<?([^)>\s]*)>?\s*\)|<(https?://[^>\s]+)>")
HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}")


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text())
    heads = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links; what stands in code is none."""
    for inline, bare in LINK.findall(CODE.sub("", page.read_text())):
        yield inline or bare


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_are_well_formed(page: Path) -> None:
    """A link to the world is https with a real host name, but for this machine; any other leads to
    a file of the tree, and to a heading in it."""
    wrong = []
    for target in links(page):
        parts = urlsplit(target)
        if parts.hostname == "127.0.0.1":
            continue
        if parts.scheme:
            fine = parts.scheme == "https" and HOST.fullmatch(parts.hostname or "")
            if not fine or parts.username or target[-1] in ".,;:":
                wrong.append(target)
        else:
            file = page.parent / parts.path if parts.path else page
            if not file.exists() or (parts.fragment and parts.fragment not in anchors(file)):
                wrong.append(target)
    assert wrong == []


def test_links_are_found() -> None:
    """The tree has links of every kind, and the pattern sees them."""
    found = {target for page in PAGES for target in links(page)}
    assert len({t for t in found if t.startswith("https://")}) > 20
    assert {t for t in found if t.startswith("http://127.0.0.1")}
    assert {t for t in found if t.startswith("../")}
