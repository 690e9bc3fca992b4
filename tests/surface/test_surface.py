"""What users hold on to is as it was recorded; see `surface.py`.

These tests know nothing of the insides: they go on unchanged while code moves.
"""

import ast
from typing import Any

import pytest

import router
from router.testing import Cluster
from tests.surface import pool_events
from tests.surface.describe import annotation, described, shown
from tests.surface.paths import NotFound, find
from tests.surface.surface import (
    CURE,
    POOL_EVENTS,
    RECORDED,
    Surface,
    compare,
    load,
    names,
    record,
    write,
)

SECTIONS = ("names", "entry points", "options", "settings", "commands", "exit codes", "events",
            "metrics", "reasons", "findings")  # fmt: skip


@pytest.fixture(scope="module")
def recorded() -> Surface:
    """The recording."""
    return load()


@pytest.fixture(scope="module")
def now(recorded: Surface) -> Surface:
    """The surface as it is."""
    return record(recorded)


@pytest.mark.parametrize("section", SECTIONS)
def test_nothing_public_is_gone_or_changed(
    section: str, recorded: Surface, now: Surface, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every recorded item of a section is there and is what it was; new ones are only told."""
    found = compare(recorded[section], now[section], section)
    with capsys.disabled():
        if found.added:
            print("", *found.added, sep="\n(new, allowed) ")
    if found.broken:
        pytest.fail("\n".join(found.broken) + CURE, pytrace=False)


def test_pool_events_come_in_the_recorded_order(
    recorded: Surface, cluster: Cluster, database: Any
) -> None:
    """A listener of SQLAlchemy's pool events sees, on a routed engine, the events it always saw,
    in that order, synchronous and asynchronous, whatever SQLAlchemy's version."""
    database.execute("CREATE TABLE item (name text)")
    cluster.wait_caught_up()
    seen = pool_events.recorded(cluster, database.name)
    found = compare(recorded[POOL_EVENTS], seen, POOL_EVENTS)
    if found.broken:
        pytest.fail("\n".join(found.broken) + CURE, pytrace=False)


def test_every_section_is_recorded(recorded: Surface, now: Surface) -> None:
    """No section is left out of the recording or of the comparison."""
    assert {*now, POOL_EVENTS} == set(recorded)
    assert set(now) == set(SECTIONS)
    assert all(recorded.values())


def test_the_recording_names_no_module_that_may_move(recorded: Surface) -> None:
    """What is recorded of a name tells no module: it says nothing of where the code stands."""
    assert not [told for told in recorded["names"].values() if "router." in told]


def test_a_name_that_is_gone_breaks() -> None:
    """A recorded item that is missing is told with what it was."""
    found = compare({"a": "def ()", "b": "class"}, {"b": "class"}, "names")
    assert found.broken == ("names: GONE a: def ()",)
    assert found.added == ()


def test_a_change_breaks() -> None:
    """A recorded item that became something else is told with both, in one line."""
    found = compare({"a": "float = 5.0"}, {"a": "float = 6.0"}, "options")
    assert found.broken == ("options: CHANGED a: 'float = 5.0' is now 'float = 6.0'",)


def test_what_is_new_breaks_nothing() -> None:
    """An item that was not recorded is told, and allowed."""
    found = compare({}, {"a": "1"}, "names")
    assert (found.broken, found.added) == ((), ("names: a: 1",))


def test_a_removed_name_of_the_package_is_found(
    recorded: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function or a method taken away is found, although the documentation names it no more."""
    monkeypatch.delattr(router.Router, "add_replica")
    monkeypatch.setattr("tests.surface.surface.documented", set)
    found = compare(recorded["names"], names(recorded["names"]), "names")
    assert [line.partition(":")[2][:35] for line in found.broken] == [
        " GONE router.Router.add_replica: de"
    ]


def test_a_changed_default_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A default is told by its value, wherever that is written."""
    before = described("router.Router.close")
    monkeypatch.setattr(router.Router.close, "__defaults__", (7.0,))
    assert "drain: float = 0.0" in before
    assert "drain: float = 7.0" in described("router.Router.close")


def test_a_function_goes_before_a_module_of_its_name() -> None:
    """``router.explain`` is the function, and what the module of that name holds is found too."""
    assert described("router.explain").startswith("def (sql: str")
    assert described("router.explain.Explanation") == "class"
    with pytest.raises(NotFound):
        find("router.explain.nothing")


def test_annotations_are_told_without_modules_and_quotes() -> None:
    """Where a type is imported from, and whether it stands in quotes, changes nothing."""

    def told(text: str) -> str:
        return annotation(ast.parse(text, mode="eval").body)

    assert told("collections.abc.Mapping[str, 'router.core.Router | None']") == (
        "Mapping[str, Router | None]"
    )
    assert told("typing.Literal['a', 'b']") == "Literal['a', 'b']"
    assert shown((1, "x", print)) == "(1, 'x', print)"


def test_the_recording_is_sorted_one_item_a_line(
    recorded: Surface, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is what `write` writes, so that its diff has one line for each change."""
    copy = tmp_path / "recorded.json"
    monkeypatch.setattr("tests.surface.surface.RECORDED", copy)
    write(recorded)
    assert copy.read_text() == RECORDED.read_text()
    assert len(copy.read_text().splitlines()) > sum(map(len, recorded.values()))
