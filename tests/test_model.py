"""The values: WAL positions, reports, and the snapshot that settles roles and lag."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cluster.roles import with_nodes, with_reports
from router.model import MAX_SAMPLES, Limits, Lsn, Node, Report, Role, Snapshot

P = Node("p", "p.example", role=Role.PRIMARY)
A = Node("a", "a.example")
B = Node("b", "b.example")
LOOSE = Limits()

positions = st.integers(0, 2**64 - 1).map(Lsn)


def cluster(*reports: Report, limits: Limits = LOOSE, now: float = 100.0) -> Snapshot:
    return with_reports(Snapshot.initial((P, A, B), limits, 0.0), reports, now)


def primary(
    node: str = "p",
    lsn: int = 1000,
    started: float = 1.0,
    timeline: int = 1,
    system_id: str = "1",
    began: int | None = None,
    flushed: int | None = None,
) -> Report:
    return Report(
        node,
        started,
        Role.PRIMARY,
        Lsn(lsn),
        timeline=timeline,
        system_id=system_id,
        began=None if began is None else Lsn(began),
        flushed=None if flushed is None else Lsn(flushed),
    )


def replica(
    node: str = "a",
    lsn: int | None = 1000,
    started: float = 1.0,
    timeline: int = 1,
    lag: float | None = 0.0,
    system_id: str = "1",
    streaming: bool = True,
    received: int = 0,
    flushed: int | None = None,
) -> Report:
    got = lsn if flushed is None else flushed
    return Report(
        node,
        started,
        Role.REPLICA,
        None if lsn is None else Lsn(lsn),
        timeline=timeline,
        system_id=system_id,
        lag_seconds=lag,
        streaming=streaming,
        received=received,
        flushed=None if got is None or not received else Lsn(got),
    )


def lost(node: str, started: float) -> Report:
    return Report(node, started, error="connection refused")


def names(nodes: tuple[Node, ...]) -> list[str]:
    return [n.name for n in nodes]


# -- Lsn ---------------------------------------------------------------------------------------


@given(positions)
def test_a_position_survives_being_written_and_read(lsn: Lsn) -> None:
    """Every position reads back from its text as itself."""
    assert Lsn.parse(str(lsn)) == lsn
    assert repr(lsn) == f"Lsn({lsn})"


@given(positions, positions)
def test_positions_order_as_bytes_not_as_text(one: Lsn, other: Lsn) -> None:
    """Positions compare as byte offsets, whatever their texts look like."""
    assert (Lsn.parse(str(one)) < Lsn.parse(str(other))) is (int(one) < int(other))


def test_a_position_is_written_as_postgresql_writes_it() -> None:
    """The high and the low 32 bits stand in hexadecimal on either side of a slash."""
    assert Lsn.parse("16/B374D848") == 0x16_B374D848
    assert str(Lsn(0x16_0000_0048)) == "16/48"


@pytest.mark.parametrize(
    "text", ["", "16", "/", "16/", "/16", "g/1", "-1/0", "0x1/2", " 1/2", "1/2 ", "1/2/3",
             "1_0/2", "1/123456789", "123456789/1"]
)  # fmt: skip
def test_text_that_is_no_position_is_refused(text: str) -> None:
    """What PostgreSQL would not write as a position raises ValueError and shows the form."""
    with pytest.raises(ValueError, match=r"is not a WAL position: expected a form like 16/"):
        Lsn.parse(text)


# -- Report.after ------------------------------------------------------------------------------


def test_one_lost_probe_is_no_outage_two_are() -> None:
    """A node is down from its second failed probe in a row, since the first of them."""
    up = cluster(replica(started=1.0))
    once = with_reports(up, [lost("a", 2.0)], 2.1)
    assert once.down("a") is None
    assert once.replicas == ()
    down = with_reports(once, [lost("a", 3.0)], 3.1).down("a")
    assert down is not None
    assert (down.since, down.failures, down.error) == (2.0, 2, "connection refused")


def test_an_answer_ends_the_outage() -> None:
    """A probe that passes counts failures from zero again and says since when the node is up."""
    back = cluster(lost("a", 1.0), lost("a", 2.0), replica(started=3.0), replica(started=4.0))
    assert back.down("a") is None
    assert (back.reports["a"].failures, back.reports["a"].since) == (0, 3.0)


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_failures_and_since_describe_the_last_unbroken_run(answers: list[bool]) -> None:
    """`failures` counts the lost probes at the end, `since` is the first of the run it ends."""
    snapshot = cluster()
    for i, answer in enumerate(answers):
        snapshot = with_reports(
            snapshot, [replica(started=float(i)) if answer else lost("a", float(i))], float(i)
        )
    run = 0
    while run < len(answers) and answers[-1 - run] is answers[-1]:
        run += 1
    report = snapshot.reports["a"]
    assert report.failures == (0 if answers[-1] else run)
    assert report.since == len(answers) - run


# -- with_reports ------------------------------------------------------------------------------


def test_a_report_older_than_the_last_is_ignored() -> None:
    """Of two probes that overtook each other, the one sent later is believed."""
    snapshot = cluster(replica(lsn=900, started=2.0), replica(lsn=800, started=1.0))
    assert snapshot.reports["a"].lsn == 900
    assert names(snapshot.replicas) == ["a"]


def test_a_snapshot_is_replaced_never_edited() -> None:
    """A reader that holds a snapshot never sees it change."""
    before = cluster(primary(), replica())
    kept = (dict(before.reports), before.replicas, before.samples)
    with_reports(before, [lost("a", 9.0), primary(lsn=5000, started=9.0)], 9.0)
    assert (dict(before.reports), before.replicas, before.samples) == kept
    with pytest.raises(TypeError):
        before.reports["a"] = lost("a", 9.0)  # type: ignore[index]


# -- bound -------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.floats(0.01, 5.0), st.integers(0, 50)),
        max_size=30,
    ),
    st.floats(-1.0, 120.0),
)
def test_bound_is_the_earliest_sample_started_after_the_commit(
    steps: list[tuple[float, int]], at: float
) -> None:
    """`bound` is never below the position at `at`, and no later sample than needed."""
    now, lsn, snapshot, history = 0.0, 1000, cluster(), []
    for pause, written in steps:
        now, lsn = now + pause, lsn + written
        snapshot = with_reports(snapshot, [primary(lsn=lsn, started=now)], now)
        history.append((now, lsn))
    after = [lsn for started, lsn in history if started > at]
    assert snapshot.bound(at) == (after[0] if after else None)
    before = [lsn for started, lsn in history if started <= at]
    bound = snapshot.bound(at)
    assert bound is None or not before or bound >= before[-1]


def test_a_sample_started_as_the_commit_returned_does_not_count() -> None:
    """Only a sample started strictly later than the commit bounds it."""
    assert cluster(primary(started=5.0)).bound(5.0) is None
    assert cluster(primary(started=5.0)).bound(4.999) == 1000


def test_samples_are_bounded_and_forgetting_them_never_lowers_a_bound() -> None:
    """After more samples than are kept, an old commit gets a later, higher bound, never none."""
    snapshot = cluster()
    for i in range(MAX_SAMPLES * 2):
        snapshot = with_reports(snapshot, [primary(lsn=1000 + i, started=float(i))], float(i))
    assert len(snapshot.samples) == MAX_SAMPLES
    assert snapshot.bound(3.5) == 1000 + MAX_SAMPLES


def test_only_the_current_primary_is_sampled() -> None:
    """A replica's position and a fenced node's position bound no commit."""
    snapshot = cluster(
        primary(lsn=500, started=1.0, timeline=2), replica(lsn=9000, started=2.0),
        primary("b", lsn=9000, started=3.0, timeline=1),
    )  # fmt: skip
    assert [s.lsn for s in snapshot.samples] == [500]


# -- roles -------------------------------------------------------------------------------------


def test_before_any_probe_the_configured_primary_is_believed() -> None:
    """Nothing probed: writes go to the configured primary, and no replica is eligible."""
    snapshot = Snapshot.initial((A, P, B), LOOSE, 0.0)
    assert (snapshot.primary, snapshot.replicas) == (P, ())


def test_a_configured_primary_that_is_a_replica_takes_no_writes() -> None:
    """A server that says it is in recovery is no primary, whatever configuration says."""
    snapshot = cluster(replica("p"), replica("a"))
    assert snapshot.primary is None
    assert names(snapshot.replicas) == ["p", "a"]


def test_a_promoted_replica_becomes_the_primary() -> None:
    """With the old primary silent, the claimant on the higher timeline takes the writes."""
    before = cluster(primary(), replica("a"), replica("b"), lost("p", 2.0), lost("p", 3.0))
    assert before.primary is P
    after = with_reports(before, [primary("a", started=4.0, timeline=2)], 4.0)
    assert (after.primary, after.timeline, after.changed) == (A, 2, 4.0)
    assert names(after.replicas) == ["b"]


@pytest.mark.parametrize("order", [("p", "a"), ("a", "p")])
def test_of_two_claimants_the_higher_timeline_wins(order: tuple[str, str]) -> None:
    """Split brain: the newer timeline takes the writes and the loser is fenced, in any order."""
    timelines = {"p": 1, "a": 2}
    snapshot = cluster(*(primary(name, timeline=timelines[name]) for name in order))
    assert snapshot.primary is A
    assert snapshot.fenced == {"p"}
    assert snapshot.replicas == ()


def test_of_two_claimants_on_one_timeline_the_current_one_stays() -> None:
    """Two primaries on one timeline: writes stay where they went, the other is fenced."""
    snapshot = cluster(primary("p"), primary("a", started=2.0), primary("p", started=3.0))
    assert snapshot.primary is P
    assert snapshot.fenced == {"a"}


def test_a_claimant_on_an_older_timeline_never_gets_the_writes() -> None:
    """While the promoted node is silent or demoted, the old primary stays fenced."""
    failed_over = cluster(primary("p"), primary("a", started=2.0, timeline=2))
    silent = with_reports(failed_over, [lost("a", 3.0), primary("p", started=3.0)], 3.0)
    assert silent.primary is A
    assert silent.fenced == {"p"}
    demoted = with_reports(failed_over, [replica("a", started=3.0, timeline=2)], 3.0)
    demoted = with_reports(demoted, [primary("p", started=4.0)], 4.0)
    assert demoted.primary is None
    assert demoted.fenced == {"p"}
    settled = with_reports(demoted, [primary("b", started=5.0, timeline=3)], 5.0)
    assert settled.primary is B


def test_a_demoted_primary_becomes_a_replica() -> None:
    """A primary that says it is in recovery serves reads from then on, and no writes."""
    snapshot = cluster(
        primary("p"), primary("a", started=2.0, timeline=2), replica("p", started=3.0, timeline=2)
    )
    assert (snapshot.primary, names(snapshot.replicas)) == (A, ["p"])
    assert snapshot.fenced == frozenset()


def test_a_new_timeline_clears_the_samples() -> None:
    """Positions of the old timeline bound nothing on the new one."""
    snapshot = cluster(primary(lsn=9000, started=1.0), replica("b", lsn=9000))
    assert snapshot.replayed("b") == 9000
    after = with_reports(snapshot, [primary("a", lsn=5000, started=2.0, timeline=2)], 2.0)
    assert [s.lsn for s in after.samples] == [5000]
    assert after.replayed("b") is None
    assert after.bound(0.5) == 5000


def test_a_replica_of_another_cluster_is_never_eligible() -> None:
    """A server with another system identifier takes no reads, however fresh it looks."""
    snapshot = cluster(primary(system_id="1"), replica("a", system_id="2"), replica("b"))
    assert names(snapshot.replicas) == ["b"]


def test_a_replica_of_another_database_is_never_eligible() -> None:
    """What opens another database than the primary takes no reads, and is a mistake that is told
    with both names; while the primary is silent too, and where one of them is not known."""
    shop, other = (replace(replica(n), database=d) for n, d in (("b", "shop"), ("a", "postgres")))
    snapshot = cluster(replace(primary(), database="shop"), other, shop)
    assert names(snapshot.replicas) == ["b"]
    assert snapshot.foreign("a") == "opens the database 'postgres', and the primary 'shop'"
    told = snapshot.impostor() or ""
    assert told.startswith("replicas[0]: a (a.example:5432) opens the database 'postgres'")
    silent = with_reports(snapshot, [lost("p", 2.0), replace(other, started=2.0)], 2.0)
    assert names(silent.replicas) == ["b"]
    assert names(cluster(primary(), other).replicas) == ["a"]
    assert names(cluster(replace(primary(), database="shop"), replica("a")).replicas) == ["a"]


def test_an_heir_that_opens_another_database_never_takes_the_writes() -> None:
    """A promoted replica behind a name that leads to another database is fenced."""
    snapshot = cluster(replace(primary(), database="shop"))
    astray = replace(primary("a", timeline=2, started=2.0), database="postgres")
    snapshot = with_reports(snapshot, [lost("p", 2.0), astray], 2.0)
    assert snapshot.primary is P
    assert snapshot.fenced == {"a"}
    right = replace(astray, node="b", database="shop")
    assert with_reports(snapshot, [right], 2.0).primary is B


@pytest.mark.parametrize("first", ["p", "a"])
def test_a_primary_of_another_cluster_never_takes_the_writes(first: str) -> None:
    """A "replica" that is some other cluster's primary is fenced, whatever its timeline."""
    both = {"p": primary("p", system_id="1"), "a": primary("a", system_id="2", timeline=9)}
    snapshot = with_reports(cluster(both.pop(first)), both.values(), 2.0)
    assert snapshot.primary is P
    assert snapshot.fenced == {"a"}
    assert snapshot.system_id == "1"


def test_a_claimant_waits_until_the_configured_primary_was_asked() -> None:
    """Nobody takes the writes from a primary that has not been probed; its silence is enough."""
    early = cluster(primary("a", timeline=2))
    assert early.primary is P
    assert with_reports(early, [lost("p", 1.0)], 1.1).primary is A


@given(
    st.lists(
        st.builds(
            lambda name, role, timeline, lsn, ok: (name, role, timeline, lsn, ok),
            st.sampled_from(["p", "a", "b"]),
            st.sampled_from([Role.PRIMARY, Role.REPLICA]),
            st.integers(1, 3),
            st.integers(0, 50),
            st.booleans(),
        ),
        max_size=25,
    )
)
def test_whatever_is_reported_roles_stay_sane(
    history: list[tuple[str, Role, int, int, bool]],
) -> None:
    """The primary is never a replica nor fenced, a replica says it is one, no timeline is lost."""
    snapshot = cluster()
    for i, (name, role, timeline, lsn, ok) in enumerate(history):
        report = Report(name, float(i), role, Lsn(lsn), timeline=timeline, system_id="1")
        before = snapshot
        snapshot = with_reports(snapshot, [report if ok else lost(name, float(i))], float(i))
        assert snapshot.primary not in snapshot.replicas
        assert snapshot.timeline >= before.timeline
        for node in snapshot.replicas:
            last = snapshot.reports[node.name]
            assert last.ok
            assert last.role is Role.REPLICA
        if snapshot.primary is not None:
            assert snapshot.primary.name not in snapshot.fenced
            mine = snapshot.reports.get(snapshot.primary.name)
            assert mine is None or mine.role is not Role.REPLICA
            assert mine is None or not mine.ok or mine.timeline == snapshot.timeline
        if snapshot.samples and snapshot.timeline == before.timeline:
            assert snapshot.samples[: len(before.samples)] == before.samples


# -- replay that went backwards ----------------------------------------------------------------


@pytest.mark.parametrize("noticed", [False, True])
def test_a_replica_that_went_backwards_is_out_until_it_is_back(noticed: bool) -> None:
    """After a crash a replica takes no reads before it has replayed as far as it once had."""
    snapshot = cluster(primary(), replica(lsn=1000, started=1.0))
    if noticed:  # a probe met the outage
        snapshot = with_reports(snapshot, [lost("a", 2.0)], 2.0)
    snapshot = with_reports(snapshot, [replica(lsn=900, started=3.0)], 3.0)
    assert snapshot.replicas == ()
    snapshot = with_reports(snapshot, [replica(lsn=999, started=4.0)], 4.0)
    assert snapshot.replicas == ()
    snapshot = with_reports(snapshot, [replica(lsn=1000, started=5.0)], 5.0)
    assert names(snapshot.replicas) == ["a"]


def test_on_a_new_timeline_the_furthest_replay_counts_anew() -> None:
    """Positions of different timelines do not compare, so a rewound replica is not kept out."""
    snapshot = cluster(
        primary("p", lsn=1000), replica("b", lsn=1000),
        primary("a", lsn=900, started=2.0, timeline=2),
        replica("b", lsn=900, started=3.0, timeline=2),
    )  # fmt: skip
    assert names(snapshot.replicas) == ["b"]


def test_a_replica_that_crashed_around_a_promotion_has_it_to_regain_all_the_same() -> None:
    """What it had replayed before the new timeline began counts on that timeline too: pins it
    satisfied may be forgotten. What it had past that is lost, and counts for nothing."""
    told = Told(primary(lsn=1000), replica("a", 900), replica("b", 1000))
    told(lost("p", 2.0), lost("p", 3.0), replica("a", 900, 3.0))
    told(primary("a", 950, 4.0, timeline=2, began=900))
    assert "b" not in told.readable  # for it has more than the promoted one
    told(replica("b", 899, 5.0, timeline=2, received=2))
    assert told.readable == []
    told(replica("b", 900, 6.0, timeline=2, received=2))
    assert told.readable == ["b"]


def test_a_crashed_replica_that_names_an_older_timeline_has_not_regained_anything() -> None:
    """The control file of a replica that starts again may be of before the promotion."""
    told = Told(primary(timeline=2), replica("a", 1000, timeline=2, received=2))
    told(lost("a", 2.0))
    told(replica("a", 900, 3.0, timeline=1), replica("a", 900, 4.0, timeline=2, received=2))
    assert told.readable == []
    told(replica("a", 1000, 5.0, timeline=2, received=2))
    assert told.readable == ["a"]


# -- who follows whom --------------------------------------------------------------------------


class Told:
    """A snapshot that takes reports in one by one, each half a second after it was asked for."""

    def __init__(self, *reports: Report, limits: Limits = LOOSE) -> None:
        self.snapshot = Snapshot.initial((P, A, B), limits, 0.0)
        self(*reports)

    def __call__(self, *reports: Report) -> None:
        for report in reports:
            self.snapshot = with_reports(self.snapshot, [report], report.started + 0.5)

    @property
    def readable(self) -> list[str]:
        return names(self.snapshot.replicas)

    def why(self, name: str) -> str:
        stray = self.snapshot.strays.get(name)
        return "" if stray is None else stray.why


def promoted(started: float = 3.0) -> tuple[Report, ...]:
    """The replica "a" is found to be the primary of timeline 2, twice."""
    return tuple(primary("a", 1100, at, timeline=2, began=1000) for at in (started, started + 1))


def test_a_receiver_on_an_older_timeline_is_that_of_another_primarys_replica() -> None:
    """Such a replica serves nothing and has no lag to tell, from the moment the primary is
    followed, and until it shows that it has come to the followed timeline."""
    told = Told(primary(), replica("b", received=1, started=2.0), limits=Limits(seconds=2.0))
    told(promoted()[0])
    assert told.readable == []
    assert (told.snapshot.lag_seconds("b"), told.snapshot.lag_bytes("b")) == (None, None)
    assert told.why("b") == "its WAL receiver is on timeline 1, the primary on 2"
    told(replica("b", 1100, 4.0, timeline=2, received=2))
    assert told.readable == ["b"]


@pytest.mark.parametrize("claims", [True, False])
def test_whom_it_was_seen_to_follow_is_not_forgotten_with_the_old_primary(claims: bool) -> None:
    """When the old primary dies its replica has no receiver to tell of, and is no better; also
    where nobody but the replica ever reached that primary."""
    told = Told(primary(), replica("b", received=1), *promoted())
    told(primary(started=5.0) if claims else lost("p", 5.0))
    told(replica("b", received=1, started=5.0), lost("p", 6.0), lost("p", 7.0))
    told(replica("b", 1200, 8.0, streaming=False), primary("a", 1500, 9.0, timeline=2, began=1000))
    assert told.readable == []
    told(lost("a", 10.0), lost("a", 11.0), replica("b", 1200, 12.0, streaming=False))
    assert told.readable == []
    told(lost("b", 13.0), replica("b", 1100, 14.0, timeline=2, streaming=False))
    assert told.readable == ["b"]


def test_a_control_file_excludes_once_another_claims_to_be_the_primary() -> None:
    """A role that sees no receiver reads on no replica of an older timeline once a server claimed
    to be the primary there, however long that is gone, nor one that was not asked meanwhile."""
    told = Told(primary(), replica("b"), *promoted())
    told(primary(started=5.0), lost("b", 5.0), lost("b", 6.0), lost("p", 6.0), lost("p", 7.0))
    told(replica("b", started=8.0))
    assert told.readable == []
    assert "GRANT pg_read_all_stats" in told.why("b")
    told(replica("b", timeline=2, started=9.0))
    assert told.readable == ["b"]


def test_an_ordinary_failover_leaves_replicas_whose_receiver_nobody_sees() -> None:
    """Their control file names the old timeline for minutes: as nobody else claims to be the
    primary they follow it, and their lag is judged by its positions."""
    told = Told(primary(), replica("b"), lost("p", 2.0), *promoted(), limits=Limits(seconds=2.0))
    told(replica("b", 1100, 5.0, lag=900.0))
    assert (told.readable, told.snapshot.lag_seconds("b")) == (["b"], 0.0)
    told(primary("a", 1500, 6.0, timeline=2, began=1000), replica("b", 1100, 9.0, lag=900.0))
    assert (told.readable, told.snapshot.lag_seconds("b")) == ([], 5.0)


def test_the_last_claim_of_a_primary_that_died_excludes_for_a_moment_only() -> None:
    """It was promoted before the next probe of the old one: that one's last answer is older than
    what is known of the new one."""
    told = Told(primary(started=2.9), replica("b", started=2.9), promoted()[0])
    assert told.readable == []
    assert not told.snapshot.strays["b"].sure
    told(lost("p", 4.0))
    assert told.readable == ["b"]


def test_a_replica_with_more_than_the_primary_has_it_from_another() -> None:
    """What it told before the primary was asked is more than the primary has, and it stays out
    when that has written as much; what it tells later may be what was written meanwhile."""
    told = Told(primary("a", 1000, 1.0, timeline=2), lost("p", 1.0))
    told(replica("b", 1300, 2.0), primary("a", 1200, 2.4, timeline=2))
    assert told.readable == ["b"]
    told(replica("b", 1300, 3.0), primary("a", 1250, 3.2, timeline=2))
    assert told.readable == []
    assert told.why("b") == "it has WAL up to 0/514, the primary only up to 0/4E2"
    told(primary("a", 1300, 5.0, timeline=2), replica("b", 1300, 5.0))
    assert told.readable == []


def back(at: float, lsn: int) -> Report:
    """The replica "b", asked over a connection opened at `at`."""
    return replace(replica("b", lsn, at), reconnected=at)


def test_a_replica_that_came_back_has_what_the_primary_had_by_then() -> None:
    """It may have crashed and replay again what it had, and a pin that it satisfied may be
    forgotten by a process that saw more than this one: what the primary has flushed when it is
    asked next it has to replay, and no more than that."""
    told = Told(primary(), back(1.0, 1000))
    told(back(5.0, 1100))
    assert told.readable == []
    told(primary(lsn=1200, started=4.9), replica("b", 1200, 6.0))
    assert told.readable == []  # the primary was asked too early
    told(primary(lsn=1300, started=6.0), replica("b", 1250, 7.0))
    assert told.readable == []
    told(primary(lsn=1500, started=8.0), replica("b", 1300, 9.0))
    assert told.readable == ["b"]


def test_a_replica_that_came_back_twice_has_to_have_what_there_was_the_second_time() -> None:
    """It may have caught up in between, for another process to see."""
    told = Told(primary(), back(1.0, 900), back(5.0, 900), primary(lsn=1100, started=6.0))
    told(back(8.0, 1050), primary(lsn=1300, started=9.0), replica("b", 1200, 10.0))
    assert told.readable == []
    told(replica("b", 1300, 11.0))
    assert told.readable == ["b"]


def test_a_replica_that_replays_late_by_design_is_not_waited_for_for_ever() -> None:
    """No pin is held for longer than ``pin_max`` either."""
    told = Told(primary(), back(1.0, 900), limits=Limits(back=60.0))
    told(back(5.0, 900), primary(lsn=1100, started=6.0), replica("b", 950, 60.0))
    assert told.readable == []
    told(replica("b", 960, 66.0))
    assert told.readable == ["b"]


def test_a_replica_that_came_back_reads_on_where_no_primary_can_tell() -> None:
    """Nobody knows what it missed, and an outage of the primary is none of reads."""
    told = Told(primary(), back(1.0, 1000), lost("p", 2.0), lost("p", 3.0), back(5.0, 1000))
    assert told.readable == ["b"]
    told(primary(lsn=1200, started=6.0))
    assert told.readable == []
    told(replica("b", 1200, 7.0))
    assert told.readable == ["b"]


def test_a_replica_that_came_back_after_a_promotion_needs_no_visible_receiver() -> None:
    """To a role that sees no WAL receiver its control file names the old timeline for minutes."""
    told = Told(primary(), back(1.0, 1000), lost("p", 2.0), *promoted(), back(5.0, 1100))
    told(primary("a", 1200, 6.0, timeline=2, began=1000), replica("b", 1200, 7.0))
    assert told.readable == ["b"]


def test_the_first_connection_to_a_replica_says_nothing() -> None:
    """Reads need no second look at the start."""
    assert Told(primary(), back(1.0, 900)).readable == ["b"]


def test_a_receiver_on_the_new_timeline_proves_nothing_where_replay_stands_still() -> None:
    """A replica with WAL past the promotion that crashed comes up with a receiver on the new
    timeline and replays none of it: it stays out, with the receiver and when that has ended,
    until it has come further."""
    told = Told(primary(), primary(lsn=1200, started=2.0), replica("b", 1200, 2.0))
    told(lost("p", 3.0), lost("p", 3.5), *promoted(4.0), lost("b", 5.0), lost("b", 6.0))
    for at in (7.0, 8.0):
        told(replica("b", 1200, at, timeline=2, received=2, flushed=900))
        assert told.readable == []
    told(replica("b", 1200, 9.0, timeline=2, received=2, flushed=1200))
    assert told.readable == []
    told(replica("b", 1200, 10.0, timeline=1, streaming=False))
    assert told.readable == []
    told(lost("b", 11.0), replica("b", 1250, 12.0, timeline=2, received=2))
    assert told.readable == ["b"]


def test_of_two_primaries_on_one_timeline_positions_may_tell() -> None:
    """A replica that is ahead of the followed one follows the other, until it was away and is not
    ahead when it comes back."""
    told = Told(primary(), primary("a", started=2.0), replica("b", 1500, 2.0, received=1))
    told(primary("p", 1400, 3.0), primary("p", 2000, 4.0), replica("b", 1600, 5.0, received=1))
    assert told.readable == []
    told(lost("b", 6.0), replica("b", 1700, 7.0, received=1), primary("p", 2000, 8.0))
    assert told.readable == ["b"]


def test_a_replica_on_a_newer_timeline_serves_only_while_the_primary_is_away() -> None:
    """It follows a server that is not among the nodes: with the followed one alive it misses what
    is written there, with that one gone its state is the newest there is."""
    told = Told(primary(), replica("b", received=1), replica("b", 1100, 2.0, 2, received=2))
    assert told.readable == ["b"]  # its primary may be the next to answer
    told(primary(started=3.0))
    assert told.readable == []
    told(lost("p", 4.0), lost("p", 5.0))
    assert told.readable == ["b"]


def test_a_replica_that_followed_a_promotion_first_is_as_late_as_it_left_the_old_primary() -> None:
    """Before its primary, or the old one's absence, was met: with all that was flushed it is not
    late, however old its last transaction; with less it is, by when the primary stood there."""
    told = Told(primary(lsn=900), primary(started=2.0), limits=Limits(seconds=1.0))
    told(replica("b", 1100, 4.0, 2, received=2, lag=60.0))
    assert (told.readable, told.snapshot.lag_seconds("b")) == (["b"], 0.0)
    told(replica("a", 950, 4.0, 2, received=2, lag=60.0))
    assert (told.readable, told.snapshot.lag_seconds("a")) == (["b"], 3.0)


def test_a_replica_without_a_receiver_is_on_no_older_timeline_than_it_was() -> None:
    """Its control file, which is then all it tells, may be of before the promotion."""
    told = Told(primary(timeline=2), replica("b", timeline=2, received=2))
    told(primary("a", timeline=1, started=2.0), primary(timeline=2, started=2.0))
    told(replica("b", timeline=1, started=3.0, streaming=False))
    assert told.readable == ["b"]
    assert told.snapshot.replayed("b") == 1000


def test_what_was_written_before_a_promotion_is_bounded_by_where_the_timeline_began() -> None:
    """Both timelines are the same up to there: a pin from before needs no more, and a replica
    that names the old timeline is known to have that."""
    told = Told(primary(), replica("a"), replica("b", 1000), lost("p", 2.0))
    told(replica("a", started=3.0), *promoted(4.0))
    assert told.snapshot.bound(2.5) == 1000
    assert told.snapshot.bound(3.5) == 1100
    told(replica("b", 1100, 6.0))
    assert told.snapshot.replayed("b") == 1000
    told(replica("b", 990, 7.0))
    assert told.snapshot.replayed("b") == 990


def test_where_a_timeline_began_is_not_believed_of_a_server_that_was_met_anew() -> None:
    """It may have crashed since, and what ended last was the recovery from that."""
    told = Told(primary(), replica("a"), replica("b"), lost("p", 2.0), replica("a", started=3.0))
    told.snapshot = told.snapshot.interrupted("a", 3.6)
    told(*promoted(4.0), replica("b", 1100, 6.0))
    assert told.snapshot.replayed("b") is None
    assert told.snapshot.bound(2.5) == 1000


def test_lag_is_behind_what_was_flushed() -> None:
    """A standby is sent no more than that, and a checkpoint's first record waits for its last."""
    told = Told(primary(lsn=1032, flushed=1000), replica("a", 1000, lag=99.0))
    assert (told.snapshot.lag_bytes("a"), told.snapshot.lag_seconds("a")) == (0, 0.0)
    assert told.snapshot.bound(0.5) == 1032


def test_one_that_has_all_from_before_the_promotion_is_as_old_as_that() -> None:
    """Until it receives what the new primary wrote, also after a quiet day."""
    told = Told(primary(), replica("a"), replica("b"), lost("p", 2.0), replica("a", started=3.0))
    told(*promoted(4.0), replica("b", 1000, 5.0, lag=86400.0))
    assert told.snapshot.lag_seconds("b") == 2.0


# -- lag ---------------------------------------------------------------------------------------


def test_an_idle_primary_makes_seconds_lie() -> None:
    """A replica that has replayed everything is 0 s behind, however old the last transaction."""
    snapshot = cluster(primary(lsn=1000), replica(lag=86400.0), limits=Limits(seconds=5.0))
    assert (snapshot.lag_bytes("a"), snapshot.lag_seconds("a")) == (0, 0.0)
    assert names(snapshot.replicas) == ["a"]


def test_a_cut_off_replica_does_not_look_fresh() -> None:
    """Lag is against the primary: without a receiver, receive minus replay would read zero."""
    snapshot = cluster(
        primary(lsn=5000), replica(lsn=1000, lag=60.0, streaming=False), limits=Limits(5.0, 100)
    )
    assert (snapshot.lag_bytes("a"), snapshot.lag_seconds("a")) == (4000, 60.0)
    assert snapshot.replicas == ()


@pytest.mark.parametrize(
    ("lag", "behind", "eligible"),
    [(4.0, 10_000, True), (60.0, 50, True), (4.0, 50, True), (60.0, 10_000, False),
     (5.0, 10_000, True), (60.0, 100, True), (None, 10_000, False), (None, 50, True)],
)  # fmt: skip
def test_either_limit_kept_is_enough(lag: float | None, behind: int, eligible: bool) -> None:
    """Few bytes or few seconds make a replica fit; an unknown lag is not zero."""
    limits = Limits(seconds=5.0, bytes=100)
    snapshot = cluster(primary(lsn=20_000), replica(lsn=20_000 - behind, lag=lag), limits=limits)
    assert bool(snapshot.replicas) is eligible


@pytest.mark.parametrize("said", [86400.0, None])
def test_a_replica_is_no_older_than_a_primary_it_has_passed(said: float | None) -> None:
    """The first write after a quiet day, or the first after a replica's start, makes no replica
    look a day, or who knows how far, behind: it has what the primary had a moment ago."""
    snapshot = cluster(limits=Limits(seconds=5.0))
    for at in range(1, 9):
        snapshot = with_reports(snapshot, [primary(lsn=1000 * at, started=float(at))], float(at))
    snapshot = with_reports(snapshot, [replica(lsn=6500, lag=said, started=8.0)], 8.0)
    assert (snapshot.lag_bytes("a"), snapshot.lag_seconds("a")) == (1500, 2.0)
    assert names(snapshot.replicas) == ["a"]
    stuck = with_reports(
        snapshot,
        [primary(lsn=9000, started=12.0), replica(lsn=6500, lag=said, started=12.0)],
        12.0,
    )
    assert stuck.lag_seconds("a") == 6.0
    assert stuck.replicas == ()


def test_what_a_replica_says_holds_where_no_look_at_the_primary_is_old_enough() -> None:
    """Behind every look remembered, a replica is as old as it says."""
    snapshot = cluster(primary(lsn=5000), replica(lsn=1000, lag=3.0), limits=Limits(seconds=5.0))
    assert snapshot.lag_seconds("a") == 3.0


def test_a_replica_on_an_older_timeline_is_as_old_as_it_says() -> None:
    """It may have replayed further than the new primary has written, and is not fresh for that."""
    snapshot = cluster(
        primary(lsn=5000), replica("a", lsn=5000), replica("b", lsn=6000),
        primary("a", lsn=5100, started=2.0, timeline=2), lost("p", 2.0),
        replica("b", lsn=6000, lag=60.0, started=2.0),
        limits=Limits(5.0, 10_000),
    )  # fmt: skip
    assert (snapshot.lag_bytes("b"), snapshot.lag_seconds("b")) == (None, 60.0)
    assert snapshot.replicas == ()
    follows = with_reports(
        snapshot,
        [primary("a", 6100, 3.0, timeline=2), replica("b", 6100, 3.0, timeline=2, lag=61.0)],
        3.0,
    )
    assert names(follows.replicas) == ["b"]


@pytest.mark.parametrize("timeline", [1, 2])
def test_a_primary_that_is_gone_makes_no_replica_older(timeline: int) -> None:
    """A replica that misses the last bytes of a primary that died serves reads for as long as that
    is gone, also where it names an old timeline for want of a WAL receiver; late ones stay out."""
    snapshot = cluster(primary(lsn=4000, timeline=2), limits=Limits(seconds=5.0))
    snapshot = with_reports(snapshot, [primary(lsn=5000, started=3.0, timeline=2)], 3.0)
    for at in (4.0, 5.0, 600.0):
        snapshot = with_reports(
            snapshot,
            [
                lost("p", at),
                replica("a", 4500, at, timeline, lag=at - 2.0),
                replica("b", 1000, at, timeline, lag=at + 9.0),
            ],
            at,
        )
    assert not snapshot.writable
    assert snapshot.lag_seconds("a") == 1.0
    assert names(snapshot.replicas) == ["a"]
    back = with_reports(
        snapshot,
        [primary(lsn=5000, started=601.0, timeline=2), replica("a", 4500, 601.0, 2, lag=599.0)],
        601.0,
    )
    assert names(back.replicas) == []


def test_a_replica_nobody_can_judge_yet_is_told_from_one_that_is_late() -> None:
    """A second look at the primary will judge the one; nothing but time helps the other."""
    limits = Limits(seconds=5.0)
    fresh = cluster(primary(lsn=1000), replica(lsn=900, lag=None), limits=limits)
    assert fresh.replicas == ()
    assert fresh.unjudged()
    late = cluster(primary(lsn=1000), replica(lsn=900, lag=9.0), limits=limits)
    assert late.replicas == ()
    assert not late.unjudged()
    again = with_reports(
        fresh, [primary(lsn=1100, started=2.0), replica(lsn=1000, lag=None, started=2.0)], 2.0
    )
    assert names(again.replicas) == ["a"]
    assert not again.unjudged()


def test_a_null_is_not_zero() -> None:
    """A replica that reports no position and no replayed transaction is not taken for fresh."""
    snapshot = cluster(primary(), replica(lsn=None, lag=None), limits=Limits(5.0, 100))
    assert (snapshot.lag_bytes("a"), snapshot.lag_seconds("a")) == (None, None)
    assert snapshot.replicas == ()
    assert (snapshot.lag_bytes("b"), snapshot.lag_seconds("b")) == (None, None)


def test_without_limits_every_answering_replica_is_eligible() -> None:
    """No limit on lag is no limit."""
    assert names(cluster(primary(lsn=9**9), replica(lsn=1, lag=1e9)).replicas) == ["a"]


# -- with_nodes --------------------------------------------------------------------------------


def test_nodes_come_and_go_and_what_is_known_stays() -> None:
    """A kept node keeps its report and role, a removed one is forgotten, a new one is unknown,
    also under a name that another had."""
    snapshot = cluster(primary(), replica("a"), replica("b"))
    c = Node("c", "c.example")
    changed = with_nodes(snapshot, (P, B, c), 5.0)
    assert changed.primary is P
    assert names(changed.replicas) == ["b"]
    assert {name for name, r in changed.reports.items() if r.ok} == {"p", "b"}
    assert changed.changed == snapshot.changed
    moved = with_nodes(changed, (P, replace(B, host="elsewhere"), c), 6.0)
    assert names(moved.replicas) == []


def test_a_new_node_has_to_replay_what_was_written_before_it_came() -> None:
    """A replica that joins takes no reads below the primary's last known position, even with no
    lag limit, and needs to reach it once: a pin all others satisfied may be forgotten."""
    snapshot = cluster(primary(), replica("a"))
    c = Node("c", "c.example")
    joined = with_nodes(snapshot, (*snapshot.nodes, c), 5.0)
    position = snapshot.samples[-1].lsn
    behind = with_reports(joined, [replica("c", lsn=position - 1, started=6.0)], 6.0)
    assert "c" not in names(behind.replicas)
    there = with_reports(behind, [replica("c", lsn=position, started=7.0)], 7.0)
    assert "c" in names(there.replicas)


def test_a_new_node_on_a_later_timeline_has_to_have_what_that_began_with() -> None:
    """A backup from before that follows the promoted server stands in its past at first."""
    told = Told(primary(lsn=1000), replica("a", 1000))
    c = Node("c", "c.example")
    told.snapshot = with_nodes(told.snapshot, (P, A, c), 2.0)
    told(lost("p", 3.0), replica("a", 1000, 3.0), *promoted(4.0))
    told(replica("c", 999, 6.0, timeline=2, received=2))
    assert told.readable == []
    told(replica("c", 1000, 7.0, timeline=2, received=2))
    assert told.readable == ["c"]


def test_a_probe_sent_before_a_node_joined_is_not_about_it() -> None:
    """A report that was on its way when its node left is dropped, also when another took its
    name meanwhile."""
    snapshot = cluster(primary(), replica("a"), replica("b"))
    late = replica("b", lsn=10**9, started=4.0)
    without = with_nodes(snapshot, (P, A), 5.0)
    assert "b" not in with_reports(without, [late], 5.5).reports
    again = with_nodes(without, (P, A, replace(B, host="elsewhere")), 6.0)
    assert not with_reports(again, [late], 6.5).reports["b"].ok


def test_a_node_made_anew_is_the_same_node() -> None:
    """The primary stays the primary when its Node is rebuilt, with another weight as well."""
    snapshot = cluster(primary(), replica("a"), primary("p", started=2.0))
    for weight in (1.0, 2.0):
        nodes = tuple(replace(n, weight=weight) for n in snapshot.nodes)
        changed = with_nodes(snapshot, nodes, 5.0)
        assert changed.primary is nodes[0]
        assert changed.fenced == frozenset()
        assert changed.changed == snapshot.changed


def test_other_nodes_before_the_first_probe_bring_their_own_primary() -> None:
    """A node that was removed is never the primary; the configured one among the new is."""
    snapshot = Snapshot.initial((P, A), LOOSE, 0.0)
    q = Node("q", "q.example", role=Role.PRIMARY)
    assert with_nodes(snapshot, (q, A), 1.0).primary is q


def test_a_node_is_found_by_name() -> None:
    """`node` gives the node of that name and raises KeyError for any other."""
    assert cluster().node("a") is A
    with pytest.raises(KeyError, match="z"):
        cluster().node("z")
    assert str(A) == "a (a.example:5432)"
