"""What a Router says of its acknowledged writes when another primary is followed."""

from typing import Any

import pytest

from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.model import MAX_SAMPLES, Lsn, Report, Role

BEGAN = 100
"""Where the second timeline begins."""


class Site:
    """A Router over a primary and two replicas, whose clock the test turns."""

    def __init__(self) -> None:
        self.now = 0.0
        config = Config.build(Server("p"), ["a", "b"], name="site")
        self.router = Router(config, clock=lambda: self.now)
        self.told: list[tuple[str, Any]] = []
        self.router.telemetry.hooks.append(lambda event, fields: self.hear(event, fields))
        self.primary(50)

    def hear(self, event: str, fields: Any) -> None:
        if event in ("writes_lost", "writes_maybe_lost"):
            self.told.append((event, (fields["node"], fields["timeline"], fields["bytes"])))

    def observe(self, name: str, role: Role, lsn: int, timeline: int = 1, **more: Any) -> None:
        """One probe, which takes a second."""
        started, self.now = self.now + 1, self.now + 2
        position = Lsn(lsn)
        self.router.observe(Report(name, started, role, position, timeline, "1", 0.0, **more))

    def primary(self, lsn: int, flushed: int | None = None) -> None:
        more = {} if flushed is None else {"flushed": Lsn(flushed)}
        self.observe("primary", Role.PRIMARY, lsn, **more)

    def replica(self, lsn: int, name: str = "replica1") -> None:
        self.observe(name, Role.REPLICA, lsn)

    def wrote(self) -> None:
        """A write that took a second, and was acknowledged."""
        sent, self.now = self.now, self.now + 1
        self.router.observation.acknowledged(sent)
        self.now += 1

    def promoted(self, began: int | None = BEGAN, timeline: int = 2) -> list[tuple[str, Any]]:
        """What is told once the first replica is found to be the primary."""
        for _ in range(2):
            self.router.observe(Report("primary", self.now, error="refused"))
            self.now += 1
        lsn = None if began is None else Lsn(began)
        self.observe("replica1", Role.PRIMARY, (began or BEGAN) + 9, timeline, began=lsn)
        self.observe("replica1", Role.PRIMARY, (began or BEGAN) + 99, timeline, began=lsn)
        return self.told


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_write_past_all_that_was_received_is_lost(site: Site) -> None:
    """Sent when the old primary stood where the new timeline began, or further, it is lost, and
    that is said once."""
    site.primary(BEGAN)
    site.replica(BEGAN)
    site.wrote()
    site.primary(BEGAN + 30)
    assert site.promoted() == [("writes_lost", ("replica1", 2, 30))]
    assert site.router.stats()["events"]["writes_lost"] == 1
    site.told.clear()
    assert site.promoted(BEGAN, 3) == []


def test_a_write_that_may_have_been_received_may_be_lost(site: Site) -> None:
    """Where the new timeline began between what the old primary had before the write and what it
    had after it, only that much is said."""
    site.primary(BEGAN - 5)
    site.wrote()
    site.primary(BEGAN + 30)
    assert site.promoted() == [("writes_maybe_lost", ("replica1", 2, 30))]


@pytest.mark.parametrize("flushed", [BEGAN, BEGAN - 1])
def test_a_write_that_was_received_is_not_lost(site: Site, flushed: int) -> None:
    """Whatever else the old primary wrote since, or had not flushed when it was looked at."""
    site.primary(BEGAN - 5)
    site.wrote()
    site.primary(BEGAN + 30, flushed)
    site.primary(BEGAN + 500)
    assert site.promoted() == []


def test_what_nobody_looked_at_is_judged_by_the_other_replica(site: Site) -> None:
    """The old primary died before it was looked at again: if another replica has more than the
    promoted one, the write may be lost; if none has, nothing is said."""
    site.primary(BEGAN - 5)
    site.wrote()
    site.replica(BEGAN + 20, "replica2")
    site.replica(BEGAN)
    assert site.promoted() == [("writes_maybe_lost", ("replica1", 2, 20))]
    other = Site()
    other.primary(BEGAN - 5)
    other.wrote()
    other.replica(BEGAN, "replica2")
    other.replica(BEGAN)
    assert other.promoted() == []


def test_who_wrote_nothing_lost_nothing(site: Site) -> None:
    """A process that has written nothing says nothing of what others lost."""
    site.primary(BEGAN + 500)
    assert site.promoted() == []


def test_a_promoted_server_that_was_restarted_shows_less(site: Site) -> None:
    """It does not tell any more where its timeline began: only what is past its own position is
    known to be lost, and of the write that it may be."""
    site.primary(BEGAN)
    site.wrote()
    site.primary(BEGAN + 30)
    assert site.promoted(None) == [("writes_maybe_lost", ("replica1", 2, 21))]


def test_an_old_write_is_judged_by_what_was_seen_then(site: Site) -> None:
    """A write is not thought lost because the positions from its time are forgotten."""
    site.primary(BEGAN - 10)
    site.wrote()
    site.primary(BEGAN)
    for n in range(MAX_SAMPLES + 10):
        site.primary(BEGAN + n)
    assert site.promoted() == []
