"""``dry_run=True``: nothing leaves the primary, and a report says what would have."""

from collections.abc import Mapping

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import router
from router.rules.decision import Reason
from tests.sqlalchemy.kit import PORT, SYNCHRONOUS, Routed, insert

pytestmark = SYNCHRONOUS


def test_everything_stays_and_is_accounted_for(routed: Routed) -> None:
    """Reads, writes, transactions and reads after a write all run on the primary; the report
    says how many a replica would have served, and why the others would have stayed."""
    engine = routed.another(dry_run=True)
    assert str(engine.router.dry_run_report()).endswith("no statement has been seen yet.")
    with routed.cluster.replay_paused():
        for _ in range(3):
            with router.request_context(), Session(engine) as session:
                assert routed.name_of(session.scalar(PORT) or 0) == "primary"
        with router.request_context():
            with engine.connect() as connection:
                insert(connection)
                connection.commit()
            with engine.connect() as connection:
                assert connection.scalar(sa.text("SELECT count(*) FROM item")) == 1
        engine.router.refresh()
        with router.request_context(), engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM item")) == 1
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
    report = engine.router.dry_run_report()
    assert (report.statements, report.replicas) == (7, 4)
    assert report.stayed == {Reason.WRITE: 1, Reason.PIN_PRIMARY: 1, Reason.EXPLICIT: 1}
    assert 1 <= report.behind <= 4  # servers write a little WAL by themselves
    assert engine.router.stats()["decisions"].keys() == {"primary"}
    told = str(report)
    assert "replicas would have taken 4 reads (57.1%) and left it 3." in told
    assert "1  14.3%  reads just after a write, so that its author sees it" in told
    assert "might have been stale" in told


def test_without_it_there_is_no_report(routed: Routed) -> None:
    """A report of nothing is refused with the cure."""
    with pytest.raises(router.ConfigError, match="dry_run: it is off: say dry_run=True"):
        routed.engine.router.dry_run_report()


def test_a_process_says_so_every_minute(routed: Routed) -> None:
    """The log has the figures of each process once a minute."""
    engine = routed.another(dry_run=True)
    told: list[dict[str, object]] = []

    def hook(name: str, fields: Mapping[str, object]) -> None:
        if name == "dry_run":
            told.append(dict(fields))

    engine.router.telemetry.hooks.append(hook)
    with router.request_context(), engine.connect() as connection:
        connection.execute(PORT)
    engine.router.dry_run._due = 0.0
    engine.router.refresh()
    (fields,) = told
    assert fields["behind"] in (0, 1)  # servers write a little WAL by themselves
    assert fields | {"behind": 0} == {"statements": 1, "replicas": 1, "share": 1.0, "behind": 0}
