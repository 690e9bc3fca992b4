"""Runs the Python in README.md and docs/: a page's ```python blocks, in order, in one namespace.

A comment on the line above a block steers it, invisibly to the reader:
`<!-- needs: cluster -->` puts the fixtures named (separated by blanks) into the namespace;
`<!-- not run: the reason -->` leaves the block out.
A ```text block straight below a block is what it prints, `…` standing for anything.
"""

import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(
    r"^(?:<!-- (?P<word>needs|not run): (?P<rest>.+?) -->\n)?```python\n(?P<code>.*?)^```$"
    r"(?:\n\n```text\n(?P<shown>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    code: str
    line: int  # of its first line in the page, from 1
    needs: tuple[str, ...]
    shown: str | None = None  # what it prints


def blocks(text: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(text):
        if match["word"] == "not run":
            continue
        line = text.count("\n", 0, match.start("code")) + 1
        needs = tuple((match["rest"] or "").split())
        found.append(Block(match["code"], line, needs, match["shown"]))
    return found


def run(block: Block, page: str, namespace: dict[str, Any]) -> None:
    # Blank lines in front make a traceback name the page's own line.
    with redirect_stdout(StringIO()) as printed:
        exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), namespace)
    if block.shown is not None:
        literal = block.shown.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")
        assert fnmatchcase(printed.getvalue(), literal.replace("…", "*")), printed.getvalue()


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page.read_text())],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_documentation_runs(page: Path, request: pytest.FixtureRequest) -> None:
    """Every Python block a reader can copy from a page works, after the blocks above it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page.read_text()):
        namespace |= {name: request.getfixturevalue(name) for name in block.needs}
        run(block, str(page), namespace)


PAGE = """\
# Page

```python
x = 1
```

<!-- needs: cluster tmp_path -->
```python
assert x == 2, "told"
```

<!-- not run: it never ends -->
```python
while True: pass
```

```console
$ true
```
"""


def test_blocks_are_found_with_what_they_need() -> None:
    """A block is Python only, knows its line and its fixtures, and can be left out by name."""
    first, second = blocks(PAGE)
    assert first == Block("x = 1\n", 4, ())
    assert second == Block('assert x == 2, "told"\n', 9, ("cluster", "tmp_path"))


def test_what_a_block_prints_is_what_the_page_shows() -> None:
    """A text block straight below a block must be its output, but for what `…` stands for."""
    page = "```python\nprint('one', [2])\n```\n\n```text\n{}\n```\n"
    for shown in ("one [2]", "one […]"):
        run(blocks(page.format(shown))[0], "page.md", {})
    with pytest.raises(AssertionError, match="one"):
        run(blocks(page.format("two"))[0], "page.md", {})


def test_a_wrong_block_fails_on_its_own_line() -> None:
    """A block that raises fails the page's test, and the traceback names page and line."""
    first, second = blocks(PAGE)
    namespace: dict[str, Any] = {}
    run(first, "page.md", namespace)
    with pytest.raises(AssertionError, match="told") as caught:
        run(second, "page.md", namespace)
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == ("page.md", 9)
