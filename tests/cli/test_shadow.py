"""A router.py in the directory where `pg-router doctor` runs."""

import json
from pathlib import Path

import pytest

from router.cli.shadow import shadow
from tests.cli.test_status import run
from tests.conftest import Database

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["router.py", "router/__init__.py"])
def test_a_file_that_takes_the_name_is_found(tmp_path: Path, name: str) -> None:
    """A module or package called router at the top is found; within a package it is none."""
    assert shadow(tmp_path) is None
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "router.py").touch()
    assert shadow(tmp_path) is None
    taken = tmp_path / name
    taken.parent.mkdir(exist_ok=True)
    taken.touch()
    finding = shadow(tmp_path)
    assert finding is not None
    assert (finding.code, str(taken) in finding.what) == ("name-taken", True)


def test_this_package_and_a_plain_directory_are_none(tmp_path: Path) -> None:
    """pg-router's own source tree is no mistake, nor is a directory that is no package."""
    (tmp_path / "router").mkdir()
    assert shadow(tmp_path) is None
    assert shadow(ROOT) is None


def test_the_doctor_tells(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding stands beside those of the servers; it is a warning."""
    (tmp_path / "router.py").touch()
    monkeypatch.chdir(tmp_path)
    done = run("doctor", "--json", "--url", database.primary_url())
    told = json.loads(done.output)
    assert told["ok"]
    assert [f["code"] for f in told["findings"] if f["level"] == "warning"] == ["name-taken"]
    assert run("doctor", "--strict", "--url", database.primary_url()).exit_code == 1
