"""The figures of docs/explanation/performance.md are those that were measured."""

import re

import pytest

from benchmarks import report


def test_the_page_tells_the_figures_measured() -> None:
    """Each table of the page is what benchmarks.report makes of the results kept, and each table
    it makes has a place there."""
    page, made = report.PAGE.read_text(), report.tables(report.results())
    assert set(re.findall(r"<!-- figures: (.+?) -->", page)) == set(made)
    assert report.filled(page, made) == page, "run python -m benchmarks.report"


@pytest.mark.parametrize("name", report.DRAWINGS)
def test_the_drawings_are_of_the_figures_measured(name: str) -> None:
    """Each drawing carries the mark of the results kept, and the page shows it."""
    source, _ = report.DRAWINGS[name]
    drawn = (report.IMAGES / f"{name}.svg").read_text()
    assert report.digest(report.results()[source]) in drawn, "run python -m benchmarks.report"
    assert f"../images/{name}.svg" in report.PAGE.read_text()
