"""What the model of PostgreSQL does in time, which cannot be compared with a server's moments."""

from contextlib import suppress
from random import Random
from typing import Any

import pytest

from router.connect.probe import PROBE_SQL, WAL_PAGE, report
from router.model import Report
from tests.simulation.postgres import (
    APPEND,
    COUNT,
    INCREMENT,
    NEXTVAL,
    READ,
    UPDATE,
    Blocked,
    Refused,
    Server,
    Session,
    World,
)


def run(
    server: Server, now: float, sql: str, params: dict[str, object] | None = None, **settings: str
) -> list[tuple[Any, ...]]:
    """The rows of a statement, in a session of its own."""
    session = server.login(now, settings=settings)
    rows = session.execute(sql, params, now).rows
    session.close(now)
    return rows


def probe(server: Server, now: float) -> Report:
    return report(server.name, now, run(server, now, PROBE_SQL)[0])


def value(server: Server, now: float) -> object:
    return run(server, now, READ, {"id": 1})[0][0]


def write(server: Server, now: float, text: str, *, asynchronous: bool = False) -> None:
    settings = {"synchronous_commit": "off"} if asynchronous else {}
    run(server, now, UPDATE, {"id": 1, "value": text}, **settings)


@pytest.fixture
def world() -> World:
    world = World(Random(1))
    world.advance(1.0)
    return world


def test_a_standby_shows_a_commit_once_it_has_replayed_it(world: World) -> None:
    primary, replica, _ = world.servers
    write(primary, 1.0, "new")
    world.advance(1.0009)
    assert value(replica, 1.0009) is None
    world.advance(1.0031)
    assert value(replica, 1.0031) == "new"


def test_the_wal_writer_flushes_an_asynchronous_commit(world: World) -> None:
    primary, replica, _ = world.servers
    write(primary, 1.05, "new", asynchronous=True)
    world.advance(1.19)
    assert (value(primary, 1.19), value(replica, 1.19)) == ("new", None)
    world.advance(1.21)
    assert value(replica, 1.21) == "new"


def test_a_killed_primary_loses_what_was_not_flushed(world: World) -> None:
    primary, replica, _ = world.servers
    write(primary, 1.01, "kept")
    write(primary, 1.02, "lost", asynchronous=True)
    kept, lost = world.commits
    primary.kill(1.03)
    primary.start(1.03)
    world.advance(2.0)
    assert (value(primary, 2.0), value(replica, 2.0)) == ("kept", "kept")
    assert world.has(kept, *world.surviving())
    assert not world.has(lost, *world.surviving())


def test_a_promoted_standby_lacks_what_it_had_not_received(world: World) -> None:
    primary, replica, other = world.servers
    write(primary, 1.0, "old")
    world.advance(1.5)
    write(primary, 1.5, "lost")
    primary.kill(1.5)
    replica.promote(1.6)
    other.follow(replica, 1.6)
    primary.start(1.7)  # as a primary still, on its own timeline
    world.advance(3.0)
    old, lost = world.commits
    assert world.surviving() == (2, replica.flushed)
    assert world.has(old, *world.surviving())
    assert not world.has(lost, *world.surviving())
    assert world.has(lost, 1, primary.flushed)
    assert [value(server, 3.0) for server in world.servers] == ["lost", "old", "old"]
    assert probe(other, 3.0).received == probe(replica, 3.0).timeline == 2
    assert probe(replica, 3.0).began == replica.line.begin


def test_a_standby_that_is_past_the_branch_stays_where_it_is(world: World) -> None:
    primary, replica, other = world.servers
    replica.promote(1.0)
    write(primary, 1.0, "past")
    world.advance(1.5)
    other.follow(replica, 1.5)
    world.advance(3.0)
    assert (value(replica, 3.0), value(other, 3.0)) == (None, "past")
    assert (other.streaming, probe(other, 3.0).received) == (True, 1)
    other.stop(3.0)
    other.start(3.0)
    assert not other.running
    other.rewind(replica, 4.0)
    world.advance(5.0)
    assert (value(other, 5.0), probe(other, 5.0).received) == (None, 2)


def test_a_standby_past_the_branch_that_crashed_receives_what_it_cannot_replay() -> None:
    world = World(Random(1), background=False)
    primary, replica, other = world.servers
    replica.promote(1.0)
    write(primary, 1.0, "past")
    world.advance(1.5)
    other.follow(replica, 1.5)
    world.advance(3.0)
    other.kill(3.0)
    other.start(3.0)
    world.advance(5.0)
    told = probe(other, 5.0)
    assert (value(other, 5.0), told.timeline, told.received) == ("past", 2, 2)
    assert (told.flushed or 0) < (told.lsn or 0)


def test_a_frozen_standby_has_what_was_sent_to_it(world: World) -> None:
    primary, replica, _ = world.servers
    replica.freeze(1.0)
    write(primary, 1.0, "sent")
    world.advance(1.5)
    primary.kill(1.5)
    replica.thaw(2.0)
    world.advance(2.1)
    assert (value(replica, 2.1), replica.streaming) == ("sent", False)


def test_a_role_that_sees_no_receiver_goes_by_the_control_file() -> None:
    world = World(Random(1), monitor_sees_receivers=False)
    primary, replica, other = world.servers
    primary.kill(1.0)
    replica.promote(1.0)
    other.follow(replica, 1.0)
    world.advance(1.5)
    told = probe(other, 1.5)
    assert (told.streaming, told.received, told.timeline) == (True, 0, 1)
    world.advance(40.0)  # a restartpoint later
    told = probe(other, 40.0)
    assert (told.received, told.timeline) == (0, 2)


def test_on_a_fresh_page_primary_and_standby_are_level(world: World) -> None:
    primary, replica, _ = world.servers
    primary.append()
    primary.flush(primary.append(WAL_PAGE - primary.end % WAL_PAGE), 1.0)
    world.advance(1.1)
    assert primary.insert == replica.replayed + 24
    assert probe(primary, 1.1).lsn == probe(replica, 1.1).lsn


def test_a_primary_writes_now_and_then_what_nobody_flushes(world: World) -> None:
    primary = world.servers[0]
    ahead = 0
    for tick in range(1, 400):
        now = 1.0 + tick / 2
        write(primary, now, str(tick))
        world.advance(now + 0.4)
        ahead += primary.insert > primary.flushed
    assert 0 < ahead < 200


def test_a_paused_standby_receives_and_does_not_reconnect(world: World) -> None:
    primary, replica, other = world.servers
    replica.pause(1.0)
    write(primary, 1.0, "new")
    world.advance(1.1)
    assert (replica.received, value(replica, 1.1)) == (primary.flushed, None)
    primary.stop(1.2)
    primary.start(1.2)
    world.advance(3.0)
    assert (replica.streaming, other.streaming) == (False, True)
    replica.resume(3.0)
    world.advance(3.1)
    assert replica.streaming
    assert value(replica, 3.1) == "new"


def test_a_delayed_standby_replays_each_commit_later(world: World) -> None:
    primary, replica, _ = world.servers
    replica.set_lag(5.0, 1.0)
    write(primary, 1.0, "one")
    write(primary, 3.0, "two")
    found = []
    for now in (5.9, 6.1, 7.9, 8.1):
        world.advance(now)
        found.append(value(replica, now))
    assert found == [None, "one", "one", "two"]


def test_whoever_waits_for_a_lock_goes_on_at_its_end(world: World) -> None:
    primary = world.servers[0]
    one, two = primary.login(1.0), primary.login(1.0)
    one.execute("BEGIN", None, 1.0)
    one.execute("SAVEPOINT a", None, 1.0)
    one.execute(INCREMENT, {"id": 1}, 1.0)
    with pytest.raises(Blocked) as waits:
        two.execute(INCREMENT, {"id": 1}, 1.0)
    one.execute("RELEASE a", None, 1.0)
    assert not waits.value.by.over
    one.execute("COMMIT", None, 1.0)
    assert waits.value.by.over
    two.execute(INCREMENT, {"id": 1}, 1.0)
    assert two.execute(COUNT, {"id": 1}, 1.0).rows == [(2,)]


def test_a_crash_skips_values_of_a_sequence(world: World) -> None:
    primary = world.servers[0]
    first = [run(primary, 1.0, NEXTVAL)[0][0] for _ in range(3)]
    primary.kill(1.0)
    primary.start(1.0)
    world.advance(2.0)
    assert first == [1, 2, 3]
    assert run(primary, 2.0, NEXTVAL) == [(34,)]


def test_each_appended_op_is_counted(world: World) -> None:
    session = world.servers[0].login(1.0)
    for _ in range(2):
        session.execute(APPEND, {"op": "twice"}, 1.0)
    session.execute("BEGIN", None, 1.0)
    session.execute(APPEND, {"op": "never"}, 1.0)
    session.execute("ROLLBACK", None, 1.0)
    assert [commit.ops for commit in world.commits] == [("twice",), ("twice",)]


def test_a_session_that_was_ended_hears_why_once(world: World) -> None:
    primary = world.servers[0]
    session = primary.login(1.0)
    primary.terminate(session, "57P01", 1.0)
    heard = []
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            session.execute(READ, {"id": 1}, 1.0)
        heard.append((refused.value.sqlstate, refused.value.ends))
    assert heard == [("57P01", True), ("", True)]


def test_a_standby_hears_late_that_its_primary_was_switched_off(world: World) -> None:
    primary, replica, _ = world.servers
    primary.lose_power(1.0)
    world.advance(50.0)
    assert (replica.streaming, probe(replica, 50.0).received) == (True, 1)
    world.advance(61.0)
    assert not replica.streaming
    primary.start(62.0)
    primary.come_back(62.0)
    write(primary, 63.0, "new")
    world.advance(64.0)
    assert value(replica, 64.0) == "new"


def test_a_standby_hears_of_a_machine_that_is_back_when_it_tells_it_something(
    world: World,
) -> None:
    primary, replica, _ = world.servers
    primary.lose_power(1.0)
    primary.start(2.0)
    primary.come_back(2.0)
    world.advance(3.0)
    write(primary, 3.0, "new")
    world.advance(13.0)
    assert value(replica, 13.0) == "new"


def test_a_standby_gets_nothing_from_a_primary_apart(world: World) -> None:
    primary, replica, _ = world.servers
    primary.leave(1.0)
    write(primary, 1.0, "new")
    world.advance(9.0)
    assert (value(replica, 9.0), replica.streaming) == (None, True)
    primary.come_back(9.0)
    world.advance(20.0)
    assert value(replica, 20.0) == "new"


@pytest.fixture
def synchronous() -> World:
    world = World(Random(1), synchronous=True)
    world.advance(1.0)
    return world


def answered(session: Session, now: float, sql: str, params: dict[str, object]) -> bool:
    """Whether a statement is answered, or waits."""
    try:
        session.execute(sql, params, now)
    except Blocked:
        return False
    return True


ROW: dict[str, object] = {"id": 1, "value": "new"}


def test_a_commit_waits_until_one_standby_has_flushed_it(synchronous: World) -> None:
    primary, replica, _ = synchronous.servers
    session = primary.login(1.0)
    assert not answered(session, 1.0, UPDATE, ROW)
    synchronous.advance(1.0009)
    assert not answered(session, 1.0009, UPDATE, ROW)
    synchronous.advance(1.1)
    assert answered(session, 1.1, UPDATE, ROW)
    assert len(synchronous.commits) == 1
    assert value(primary, 1.1) == value(replica, 1.1) == "new"


def test_nobody_sees_on_its_primary_a_commit_that_waits(synchronous: World) -> None:
    primary, replica, other = synchronous.servers
    for server in (replica, other):
        server.pause(1.0)
        server.freeze(1.0)
    session, second = primary.login(1.0), primary.login(1.0)
    assert not answered(session, 1.0, UPDATE, ROW)
    synchronous.advance(9.0)
    assert value(primary, 9.0) is None
    assert not answered(second, 9.0, UPDATE, ROW)  # its lock is held
    replica.thaw(9.0)
    synchronous.advance(9.1)
    assert value(primary, 9.1) == "new"
    assert answered(session, 9.1, UPDATE, ROW)
    assert value(replica, 9.1) is None  # flushed there, and not replayed


def test_a_standby_may_show_a_commit_before_its_primary_does(synchronous: World) -> None:
    primary, replica, _ = synchronous.servers
    assert not answered(primary.login(1.0), 1.0, UPDATE, ROW)
    seen = set()
    for tick in range(50):
        now = 1.0 + tick / 10_000
        synchronous.advance(now)
        seen.add((value(primary, now), value(replica, now)))
    assert (None, "new") in seen


def test_who_ends_a_session_that_waits_lets_its_commit_stand(synchronous: World) -> None:
    primary, replica, other = synchronous.servers
    replica.freeze(1.0)
    other.freeze(1.0)
    session = primary.login(1.0)
    assert not answered(session, 1.0, UPDATE, ROW)
    primary.terminate(session, "57P01", 2.0)
    assert value(primary, 2.0) == "new"
    with pytest.raises(Refused) as refused:
        session.execute(UPDATE, ROW, 2.0)
    assert refused.value.sqlstate == ""  # its client hears of no shutdown


def test_a_commit_waits_on_without_its_client(synchronous: World) -> None:
    primary, replica, other = synchronous.servers
    replica.freeze(1.0)
    other.freeze(1.0)
    session = primary.login(1.0)
    assert not answered(session, 1.0, UPDATE, ROW)
    session.close(1.1)
    synchronous.advance(9.0)
    assert value(primary, 9.0) is None
    replica.thaw(9.0)
    synchronous.advance(9.1)
    assert value(primary, 9.1) == "new"


@pytest.mark.parametrize("mode", ["local", "off"])
def test_some_commits_wait_for_nobody(synchronous: World, mode: str) -> None:
    session = synchronous.servers[0].login(1.0, settings={"synchronous_commit": mode})
    assert answered(session, 1.0, UPDATE, ROW)


def test_a_crashed_primary_shows_what_waited(synchronous: World) -> None:
    primary, replica, other = synchronous.servers
    replica.freeze(1.0)
    other.freeze(1.0)
    assert not answered(primary.login(1.0), 1.0, UPDATE, ROW)
    primary.kill(1.1)
    primary.start(1.1)
    synchronous.advance(2.0)
    assert value(primary, 2.0) == "new"


def _story(seed: int) -> World:
    world, rand = World(Random(seed)), Random(seed)
    sessions = [server.login(0.5) for server in world.servers for _ in range(3)]
    for step in range(300):
        now = 1.0 + step / 50
        world.advance(now)
        session = rand.choice(sessions)
        sql = rand.choice([READ, UPDATE, INCREMENT, COUNT, "BEGIN", "COMMIT", "ROLLBACK"])
        with suppress(Refused, Blocked):
            session.execute(sql, {"id": rand.randrange(3), "value": str(step)}, now, str(step))
        if step == 200:
            world.servers[0].kill(now)
            world.servers[1].promote(now)
    return world


def test_the_same_seed_gives_the_same_story() -> None:
    one, two = _story(7), _story(7)
    assert one.ran == two.ran
    assert one.commits == two.commits
    assert len(one.commits) > 20
