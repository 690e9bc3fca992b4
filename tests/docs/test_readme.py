"""What README.md shows of the demo is what a run of it printed."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = re.compile(r"(?ms)^```text\n(.*?)^```$")


def test_the_readme_shows_the_end_of_the_run_on_the_page() -> None:
    """Each line of the README's transcript stands in the whole one, in its order."""
    (shown,) = RUN.findall((ROOT / "README.md").read_text())
    page = (ROOT / "docs" / "tutorial" / "watch-it-work.md").read_text()
    whole = iter(RUN.findall(page)[0].splitlines())
    assert shown.strip()
    assert all(line in whole for line in shown.splitlines())
