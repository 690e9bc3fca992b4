"""Who is out and for how long: Makara's word, with a probe before the return."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.rules.blacklist import Blacklist

LONGEST = 300.0


def test_a_failure_keeps_the_node_out_for_its_duration() -> None:
    """A node is out from its failure on, and due once its seconds are over."""
    blacklist = Blacklist(LONGEST)
    entry = blacklist.add("a", "08006", 30.0, 100.0)
    assert entry is not None
    assert "a" in blacklist
    assert (entry.since, entry.until, entry.reason, entry.failures) == (100.0, 130.0, "08006", 1)
    assert (entry.due(129.9), entry.due(130.0)) == (False, True)
    assert "b" not in blacklist


@pytest.mark.parametrize("duration", [0, 0.0, -1.0])
def test_a_duration_of_zero_keeps_nothing_out(duration: float) -> None:
    """Where blacklisting is off, a failure changes nothing, however often it comes."""
    blacklist = Blacklist(LONGEST)
    before = blacklist.entries
    assert [blacklist.add("a", "08006", duration, float(i)) for i in range(3)] == [None] * 3
    assert blacklist.entries is before


def test_time_alone_lets_nobody_back() -> None:
    """A due node stays out until it is removed: a probe has to pass first."""
    blacklist = Blacklist(LONGEST)
    entry = blacklist.add("a", "08006", 1.0, 0.0)
    assert entry is not None
    assert entry.due(10_000.0)
    assert "a" in blacklist
    assert blacklist.remove("a", 0.0) is entry
    assert "a" not in blacklist
    assert blacklist.remove("a", 0.0) is None


def test_a_failure_while_out_does_not_lengthen_the_term() -> None:
    """Connections that were checked out before the outage belong to it."""
    blacklist = Blacklist(LONGEST)
    first = blacklist.add("a", "08006", 30.0, 0.0)
    assert blacklist.add("a", "57P01", 30.0, 29.9) is first
    assert blacklist.entries["a"] is first


def test_a_term_doubles_while_the_node_keeps_failing_up_to_the_cap() -> None:
    """Each failure of a due node doubles its term, never beyond the longest one."""
    blacklist, now, terms = Blacklist(100.0), 0.0, []
    for _ in range(5):
        entry = blacklist.add("a", "08006", 30.0, now)
        assert entry is not None
        terms.append(entry.duration)
        assert entry.until == now + entry.duration
        now = entry.until
    assert terms == [30.0, 60.0, 100.0, 100.0, 100.0]
    last = blacklist.entries["a"]
    assert (last.since, last.failures) == (0.0, 5)


def test_a_node_that_came_back_starts_over() -> None:
    """What happened before the node was let in again does not count."""
    blacklist = Blacklist(LONGEST)
    blacklist.add("a", "08006", 30.0, 0.0)
    blacklist.add("a", "08006", 30.0, 30.0)
    blacklist.remove("a", 0.0)
    entry = blacklist.add("a", "08006", 30.0, 50.0)
    assert entry is not None
    assert (entry.duration, entry.since, entry.failures) == (30.0, 50.0, 1)


@given(
    st.floats(0.1, 50.0),
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(-1.0, 100.0), st.floats(0.0, 60.0))),
)
def test_no_term_exceeds_the_longest_nor_ever_shortens(
    longest: float, failures: list[tuple[str, float, float]]
) -> None:
    """Whatever durations are asked for, a term lasts at most `longest` and never moves back."""
    blacklist, now = Blacklist(longest), 0.0
    for name, duration, pause in failures:
        now += pause
        before = blacklist.entries.get(name)
        entry = blacklist.add(name, "08006", duration, now)
        if duration <= 0:
            assert entry is None
            continue
        assert entry is not None
        assert 0 < entry.duration <= longest
        assert before is None or entry.until >= before.until
        assert before is None or entry is before or before.due(now)


def test_entries_are_replaced_whole() -> None:
    """A reader that holds `entries` never sees them change."""
    blacklist = Blacklist(LONGEST)
    blacklist.add("a", "08006", 30.0, 0.0)
    held = blacklist.entries
    before = dict(held)
    blacklist.add("b", "08006", 30.0, 1.0)
    blacklist.add("a", "08006", 30.0, 40.0)
    blacklist.remove("a", 0.0)
    assert dict(held) == before
    with pytest.raises(TypeError):
        held["c"] = before["a"]  # type: ignore[index]


def test_no_entry_is_lost_between_threads() -> None:
    """Threads that add and remove different nodes at once do not undo one another."""
    blacklist, start = Blacklist(LONGEST), threading.Barrier(8)

    def work(me: int) -> None:
        start.wait()
        for i in range(300):
            blacklist.add(f"{me}.{i}", "08006", 30.0, 0.0)
            if i % 2:
                blacklist.remove(f"{me}.{i}", 0.0)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(blacklist.entries) == {f"{me}.{i}" for me in range(8) for i in range(0, 300, 2)}


def test_of_racing_failures_one_counts() -> None:
    """Many threads that meet one outage make one entry, so it is counted once."""
    blacklist, start = Blacklist(LONGEST), threading.Barrier(8)
    got: list[object] = []

    def work() -> None:
        start.wait()
        got.append(blacklist.add("a", "08006", 30.0, 0.0))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {id(entry) for entry in got} == {id(blacklist.entries["a"])}


def test_its_repr_names_who_is_out() -> None:
    """Printed, a blacklist says who is on it."""
    blacklist = Blacklist(LONGEST)
    assert repr(blacklist) == "<Blacklist empty>"
    blacklist.add("a", "08006", 30.0, 0.0)
    blacklist.add("b", "08006", 30.0, 0.0)
    assert repr(blacklist) == "<Blacklist a, b>"
