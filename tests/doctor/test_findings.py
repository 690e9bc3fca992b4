"""The doctor's rules, on facts that are dear or impossible to make on real servers."""

from dataclasses import replace
from typing import Any

import pytest

from router.config.config import Config
from router.doctor.facts import Console, Facts, Pooler
from router.doctor.findings import Case, examine
from router.model import Snapshot

SETTINGS = {
    "server_version_num": "170002",
    "max_connections": "100",
    "hot_standby_feedback": "on",
    "max_standby_streaming_delay": "30000",
    "synchronous_commit": "on",
}
KEPT = Console((1, 21, 0), {"max_prepared_statements": "200"})


def facts(node: str, *, standby: bool, started: str) -> Facts:
    return Facts(
        node=node,
        address=f"{node}:5432",
        standby=standby,
        streaming=standby,
        settings=SETTINGS,
        database="shop",
        started=started,
        system_id="7",
    )


def codes(
    primary: dict[str, Any] | None = None, replica: dict[str, Any] | None = None, **options: Any
) -> list[tuple[str, str, str]]:
    """What is found of a sound primary and replica with these facts in place of theirs."""
    config = Config.from_url("postgresql://primary/shop", ["replica1"], **options)
    told = {
        "primary": replace(facts("primary", standby=False, started="1"), **primary or {}),
        "replica1": replace(facts("replica1", standby=True, started="2"), **replica or {}),
    }
    servers = config.servers()
    snapshot = Snapshot.initial(servers, config.limits(), 0.0)
    findings = examine(Case(config, servers, told, snapshot))
    return [(f.level, f.code, f.node) for f in findings]


def test_what_keeps_reads_unasked_is_told_once() -> None:
    """An unsafe implicit cast is told of the primary alone: every node has the same catalog."""
    found = {"unasked": ("every statement: casts int4 to bool → calls app.f(integer)",)}
    assert codes(primary=found, replica=found) == [("warning", "reads-kept", "primary")]


def test_texts_that_cost_reads_are_told() -> None:
    """What begins like a read and does not parse is counted, and the first one shown."""
    config = Config.from_url("postgresql://primary/shop")
    told = {"primary": facts("primary", standby=False, started="1")}
    servers = config.servers()
    snapshot = Snapshot.initial(servers, config.limits(), 0.0)
    case = Case(config, servers, told, snapshot, None, (3, "SELECT a\n GROUP BY ALL"))
    (finding,) = (f for f in examine(case) if f.code == "unparsed-reads")
    assert "3 texts" in finding.what
    assert "SELECT a GROUP BY ALL" in finding.what


def test_nothing_is_found_of_sound_servers() -> None:
    """Servers that are as they should be give no finding."""
    assert codes() == []


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"clock_offset": 2.0}, ("warning", "clock-skew", "replica1")),
        ({"streaming": False}, ("warning", "not-streaming", "replica1")),
        ({"catalog_problem": "permission denied"}, ("warning", "catalog-unreadable", "replica1")),
        ({"encrypted": False}, ("note", "plain-text", "replica1")),
        (
            {"settings": SETTINGS | {"server_version_num": "120020", "server_version": "12.20"}},
            ("error", "server-too-old", "replica1"),
        ),
        (
            {"settings": SETTINGS | {"hot_standby_feedback": "off"}},
            ("note", "conflicts", "replica1"),
        ),
        (
            {"settings": SETTINGS | {"hot_standby_feedback": "off"}, "conflicts": 3},
            ("warning", "conflicts", "replica1"),
        ),
    ],
)
def test_of_a_replica(changes: dict[str, Any], finding: tuple[str, str, str]) -> None:
    """Each fact about a replica has a finding of its own; a clock is told beside both others."""
    assert set(codes(replica=changes)) == {finding}


def test_a_slow_answer_is_no_clock_skew() -> None:
    """What the asking took is not held against a clock."""
    assert codes(replica={"clock_offset": 2.0, "clock_error": 1.5}) == []


def test_reads_are_not_cancelled_where_replay_waits() -> None:
    """With max_standby_streaming_delay = -1 no read is cancelled, with feedback or without."""
    waits = SETTINGS | {"hot_standby_feedback": "off", "max_standby_streaming_delay": "-1"}
    assert codes(replica={"settings": waits}) == []


def test_commits_that_wait_for_replay() -> None:
    """remote_apply is a note, and none where no standby is synchronous."""
    mode = SETTINGS | {"synchronous_commit": "remote_apply"}
    assert codes({"settings": mode}) == []
    named = mode | {"synchronous_standby_names": "replica1"}
    assert codes({"settings": named}) == [("note", "remote-apply", "primary")]


@pytest.mark.parametrize(
    ("console", "findings"),
    [
        (KEPT, []),
        (None, [("note", "prepared-unknown", "primary")]),
        (Console((1, 20, 1), KEPT.settings), [("error", "prepared-unkept", "primary")]),
        (
            replace(KEPT, settings={"max_prepared_statements": "0"}),
            [("error", "prepared-unkept", "primary")],
        ),
    ],
)
def test_prepared_statements_through_a_pgbouncer(
    console: Console | None, findings: list[tuple[str, str, str]]
) -> None:
    """They are kept from PgBouncer 1.21 on, where max_prepared_statements is not 0."""
    found = codes(
        {"pooler": Pooler("transaction", console)},
        {"pooler": Pooler("transaction", KEPT)},
        pgbouncer=True,
        prepared_statements=True,
        session_url="postgresql://primary/shop",
    )
    assert found == findings


def test_findings_are_told_worst_first_in_one_line() -> None:
    """Errors come before warnings and notes; each line has level, node, cure and code."""
    config = Config.from_url("postgresql://primary/shop")
    servers = config.servers()
    gone = Facts(node="primary", address="primary:5432", problem="refused")
    case = Case(
        config, servers, {"primary": gone}, Snapshot.initial(servers, config.limits(), 0.0)
    )
    first, second = examine(case)
    assert (first.level, second.level) == ("error", "note")
    assert str(first).startswith("error: primary: primary:5432: refused: see that")
    assert str(first).endswith("[unreachable]")
    assert "\n" not in str(first)
