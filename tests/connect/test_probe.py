"""How the row of a probe becomes a Report."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.connect.probe import PROBE_SQL, report
from router.model import Lsn, Role

MIB = 1 << 20
PAGE = 8192
HIDDEN = (None, None, None)


def test_a_primary_reports_where_it_writes() -> None:
    """Not in recovery means primary, with its insert position, timeline, cluster and database."""
    row = (False, "0/3000060", 2, "7000", None, False, None, "0/2000060", "0/3000028", "shop")
    found = report("p", 5.0, row)
    assert (found.began, found.flushed) == (Lsn(0x2000060), Lsn(0x3000028))
    assert (found.node, found.started, found.role) == ("p", 5.0, Role.PRIMARY)
    assert (found.lsn, found.timeline, found.system_id) == (Lsn(0x3000060), 2, "7000")
    assert found.database == "shop"
    assert found.ok
    assert found.lag_seconds is None


def test_a_replica_reports_how_far_it_replayed() -> None:
    """In recovery means replica, with its replay position, lag and whether WAL streams in."""
    row = (True, "0/3000060", 2, "7000", 0.25, True, 2, None, None, "shop")
    found = report("a", 5.0, row)
    assert found.received == 2
    assert (found.role, found.lsn) == (Role.REPLICA, Lsn(0x3000060))
    assert (found.lag_seconds, found.streaming) == (0.25, True)


def test_what_the_server_hides_is_unknown_not_zero() -> None:
    """NULLs become None, 0 and empty: an unknown position is no position."""
    found = report("a", 5.0, (True, *[None] * 9))
    assert (found.lsn, found.timeline, found.system_id, found.database) == (None, 0, "", "")
    assert (found.received, found.began, found.flushed) == (0, None, None)
    assert (found.lag_seconds, found.streaming) == (None, False)


def primary_at(position: int) -> int:
    found = report("p", 0.0, (False, str(Lsn(position)), 1, "1", None, False, *HIDDEN, "shop"))
    assert found.lsn is not None
    return found.lsn


@given(st.integers(1, 10**6).filter(lambda page: page % (MIB // PAGE)))
def test_behind_a_page_header_stands_the_page_start(page: int) -> None:
    """The insert position just behind a page's header is the page's start to a replica."""
    start = page * PAGE
    assert primary_at(start + 24) == start


@given(st.integers(1, 10**4))
def test_behind_a_segment_header_stands_the_segment_start(mebibyte: int) -> None:
    """The header of a segment's first page is longer: 40 bytes, met after each pg_switch_wal."""
    start = mebibyte * MIB
    assert primary_at(start + 40) == start


@given(st.integers(0, 2**50))
def test_no_position_is_lowered_past_a_record(position: int) -> None:
    """The position is taken as it is wherever a record may end before it on its page."""
    if position % PAGE not in (24, 40):
        assert primary_at(position) == position
    assert position - primary_at(position) in (0, 24, 40)


@given(st.integers(0, 2**50))
def test_a_replica_is_never_given_a_lower_position(position: int) -> None:
    """Replay positions are end of records already, whatever they are."""
    assert (
        report("a", 0.0, (True, str(Lsn(position)), 1, "1", 0.0, True, *HIDDEN, "shop")).lsn
        == position
    )


def test_an_answer_that_makes_no_sense_is_an_error() -> None:
    """A position that is none raises ValueError, which the monitor reports as a failed probe."""
    with pytest.raises(ValueError, match="is not a WAL position"):
        report("p", 0.0, (False, "nonsense", 1, "1", None, False, *HIDDEN, "shop"))


def test_the_probe_is_one_statement_without_parameters() -> None:
    """One round trip asks everything: no parameter, no second statement."""
    assert "%" not in PROBE_SQL
    assert ";" not in PROBE_SQL
