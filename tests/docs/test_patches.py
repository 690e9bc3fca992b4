"""docs/explanation/what-it-patches.md, held to what the modules say of themselves."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "what-it-patches.md"


def test_the_page_names_each_module_that_patches() -> None:
    """The modules in the page's first two tables are those whose first line begins with
    "Patches", and no others."""
    first_two, by_name = PAGE.read_text().split("## By a private name")
    told = set(re.findall(r"`(router/[\w/]+\.py)`", first_two))
    docstrings = {
        str(path.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text())) or ""
        for path in (ROOT / "router").rglob("*.py")
    }
    assert told == {path for path, text in docstrings.items() if text.startswith("Patches ")}
    assert set(re.findall(r"`(router/[\w/]+\.py)`", by_name)) <= docstrings.keys()
