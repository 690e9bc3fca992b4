"""Pins kept by caller: in the process, and in a real Redis that is killed and comes back."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

import router
from router.errors import ConfigError
from router.model import Lsn
from router.pins.carrier import PinCarrier, key
from router.pins.store import DOUBT, Breaker, MemoryPinStore
from router.pins.token import Entry, merged
from router.redis import AsyncRedisPinStore, RedisPinStore, StoreUnavailable
from router.rules.context import current_context
from tests.pins.conftest import RedisServer
from tests.pins.kit import SECRET, Shop

NOW = 1_700_000_000.0


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisPinStore]:
    store = RedisPinStore.from_url(redis_server.url, timeout=0.2, retry_delay=0.01)
    yield store
    store.close()


def load_async(url: str, who: str, **save: str) -> dict[str, str]:
    """What the store for asyncio says, after it has saved `save`."""

    async def main() -> Any:
        store = AsyncRedisPinStore.from_url(url)
        if save:
            await store.save(who, save, 60.0)
        found = await store.load(who)
        await store.close()
        return found

    found: dict[str, str] = asyncio.run(main())
    return found


def test_both_stores_share_what_they_save(store: RedisPinStore, redis_server: RedisServer) -> None:
    """What a synchronous process saves, one with asyncio finds, and the reverse."""
    assert store.load("me") == {}
    store.save("me", {"a": "1"}, 60.0)
    assert load_async(redis_server.url, "me", b="2") == {"a": "1", "b": "2"}
    assert store.load("me") == {"a": "1", "b": "2"}
    assert store.load("you") == {}


def test_a_store_by_mediafusions_variables(redis_server: RedisServer) -> None:
    """MediaFusion's Redis variables, as they stand, make a store of either kind that works."""
    environ = {
        "REDIS_URL": redis_server.url,
        "REDIS_MAX_CONNECTIONS": "7",
        "REDIS_RETRY_ATTEMPTS": "3",
        "REDIS_RETRY_DELAY": "0.1",
        "REDIS_CONNECTION_TIMEOUT": "10",
        "REDIS_ENABLE_CIRCUIT_BREAKER": "true",
        "REDIS_RS_URL": "redis://elsewhere:6379",
    }
    store = RedisPinStore.from_mediafusion(environ)
    store.save("mediafusion", {"a": "1"}, 60.0)
    assert store.load("mediafusion") == {"a": "1"}
    pool = store._client.connection_pool
    assert (pool.max_connections, pool.connection_kwargs["socket_timeout"]) == (7, 10.0)
    assert store._breaker.failures == 3
    store.close()
    off = AsyncRedisPinStore.from_mediafusion(environ | {"REDIS_ENABLE_CIRCUIT_BREAKER": "false"})
    assert off._breaker.failures == 0


@pytest.mark.parametrize(
    ("environ", "says"),
    [({}, "REDIS_URL: not set"), ({"REDIS_RETRY_DELAY": "soon"}, "REDIS_RETRY_DELAY: 'soon'")],
)
def test_mediafusions_variables_are_named_where_they_are_wrong(
    environ: dict[str, str], says: str
) -> None:
    """Without its URL, or with a delay that is no number, a store is refused by the name."""
    given = {"REDIS_URL": "redis://localhost"} | environ if environ else {}
    with pytest.raises(ConfigError, match=says):
        RedisPinStore.from_mediafusion(given)


def test_redis_forgets_in_time(store: RedisPinStore, redis_server: RedisServer) -> None:
    """Keys carry our prefix and end by themselves, `ttl` seconds after the last save."""
    store.save("me", {"a": "1"}, 0.5)
    store.save("me", {"b": "2"}, 30.0)
    with Redis.from_url(redis_server.url) as client:
        assert client.keys() == [b"pg_router:pin:me"]
        assert 29_000 < int(client.pttl("pg_router:pin:me")) <= 30_000


positions = st.builds(
    lambda at, lsn, timeline: Entry("", NOW + at, Lsn(lsn), timeline).value,
    st.sampled_from([0.0, 0.001, 60.0, 60.001, 61.0]),
    st.integers(1, 3),
    st.integers(1, 3),
)
saves = st.lists(
    st.dictionaries(
        st.sampled_from(["a", "a?", "b", "b?"]),
        st.text("0129af", min_size=1, max_size=4) | positions,
    ),
    max_size=5,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(saves)
def test_redis_merges_as_the_rule_says(store: RedisPinStore, saves: list[dict[str, str]]) -> None:
    """The script in Redis and the store in memory come to what `merged` says, save by save."""
    who, expected, memory = f"who{time.monotonic_ns()}", dict[str, str](), MemoryPinStore()
    for fields in saves:
        expected = merged(expected, fields, 60.0)
        store.save(who, fields, 60.0)
        memory.save(who, fields, 60.0)
    assert store.load(who) == memory.load(who) == expected


def test_memory_forgets_in_time() -> None:
    """An entry ends `ttl` seconds after its last save, and takes no room afterwards."""
    now = 0.0
    store = MemoryPinStore(clock=lambda: now)
    store.save("me", {"a": "1"}, 10.0)
    now = 5.0
    store.save("you", {"b": "2"}, 10.0)
    store.save("me", {"c": "3"}, 10.0)
    now = 14.9
    assert (store.load("me"), store.load("you")) == ({"a": "1", "c": "3"}, {"b": "2"})
    now = 15.0
    assert store.load("me") == {}
    store.save("them", {}, 10.0)
    assert len(store) == 1


def test_a_breaker_opens_and_tries_again() -> None:
    """After enough failures in a row nobody asks for a while; then one does, for all."""
    breaker = Breaker(failures=2, cooldown=5.0)
    breaker.failed(0.0)
    assert breaker.allows(0.0)
    breaker.succeeded()
    breaker.failed(1.0)
    assert breaker.allows(1.0)
    breaker.failed(1.0)
    assert not breaker.allows(5.9)
    assert [breaker.allows(6.0), breaker.allows(6.0)] == [True, False]
    breaker.failed(6.5)
    assert not breaker.allows(11.4)
    assert breaker.allows(11.5)
    breaker.succeeded()
    assert [breaker.allows(11.6), breaker.allows(11.6)] == [True, True]
    never = Breaker(failures=0)
    for _ in range(9):
        never.failed(0.0)
    assert never.allows(0.0)


def test_a_redis_that_does_not_answer_costs_a_bounded_time(
    store: RedisPinStore, redis_server: RedisServer
) -> None:
    """A frozen Redis costs its time-outs, a few times; then the breaker answers at once."""
    assert redis_server.process is not None
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        for _ in range(3):
            with pytest.raises(Exception, match=r"(?i)time"):
                store.load("me")
        # Three calls, each with one retry: 3 * (2 * 0.2 + 0.01) s, and the machine's noise.
        assert time.monotonic() - started < 20
        started = time.monotonic()
        for _ in range(100):
            with pytest.raises(StoreUnavailable):
                store.load("me")
            with pytest.raises(StoreUnavailable):
                store.save("me", {"a": "1"}, 60.0)
        # Asked, Redis would cost a time-out each: 200 * 0.2 s.
        assert time.monotonic() - started < 20
    finally:
        redis_server.process.send_signal(signal.SIGCONT)


Act = Callable[[PinCarrier], Any]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_redis_that_is_killed_and_comes_back(
    kind: str, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without Redis each request is pinned from its start, and goes on; one event says so, and
    one that it is back. What was lost with it is covered until it no longer matters."""
    caplog.set_level(logging.INFO, "router")
    now = 100.0
    options: dict[str, Any] = {"retries": 0, "failures": 0}
    made = RedisPinStore if kind == "sync" else AsyncRedisPinStore
    store: Any = made.from_url(redis_server.url, **options)
    shop = Shop(clock=lambda: now)
    carrier = PinCarrier(
        SECRET, store=store, clock=lambda: now, wall=lambda: NOW + now, max_age=60.0
    )
    loop = asyncio.new_event_loop()

    def loaded() -> Any:
        if kind == "sync":
            return carrier.load("me")
        return loop.run_until_complete(carrier.load_async("me"))

    def shared() -> bool:
        if kind == "sync":
            return carrier.share("me")
        return loop.run_until_complete(carrier.share_async("me"))

    def request(*, write: bool = False) -> str:
        """One request of the caller: where it reads from."""
        with router.request_context() as context:
            carrier.arrive(context.pins, (), loaded())
            if write:
                shop.write()
                assert shared() is not down
            return shop.reads_from()

    def events(name: str) -> int:
        return sum(f"event={name} " in r.message or r.message.endswith(f"event={name}")
                   for r in caplog.records)  # fmt: skip

    down = False
    now += 1
    shop.caught_up()
    assert request() == "replica"
    assert request(write=True) == "primary"
    assert request() == "primary"
    now += 1
    shop.caught_up()
    assert request() == "replica"

    redis_server.kill()
    down = True
    now += 1
    for _ in range(3):
        assert request(write=True) == "primary"
        assert request() == "primary"
    now += 1
    shop.caught_up()
    assert request() == "primary"  # another writer's save may be failing just now
    assert (events("store_away"), events("store_back")) == (1, 0)
    assert carrier.stats()["store_failed"] == 10

    redis_server.start()
    down = False
    now += 1
    assert request() == "primary"
    assert (events("store_away"), events("store_back")) == (1, 1)
    now += DOUBT
    assert request() == "primary"  # writers may have thought it away until now
    now += 0.1
    shop.caught_up()
    assert request() == "replica"
    assert request(write=True) == "primary"
    now += 0.1
    shop.caught_up()
    now += 60.0
    assert loaded().everywhere is None
    assert (events("store_away"), events("store_back")) == (1, 1)
    if kind == "sync":
        store.close()
    else:
        loop.run_until_complete(store.close())
    loop.close()


def test_entries_of_a_store_are_checked_too() -> None:
    """What is no entry, or too old, is passed over."""
    carrier = PinCarrier(SECRET, wall=lambda: NOW)
    shop = Shop()
    name = carrier.tokens.ids(shop.name)[0]
    old = Entry(name, NOW - 61, Lsn(9999), 1)
    stored = router.pins.carrier.Stored({old.field: old.value, "x": "y", f"{name}?": "z"}, None)
    with router.request_context() as context:
        carrier.arrive(context.pins, (), stored)
        assert context.pins.arrived is None


def test_a_position_and_an_unknown_one_hold_both() -> None:
    """A caller with a known and an unknown position is served by a replica that covers both."""
    now = 100.0
    carrier = PinCarrier(SECRET, clock=lambda: now, wall=lambda: NOW)
    shop = Shop(clock=lambda: now)
    name = carrier.tokens.ids(shop.name)[0]
    both = [Entry(name, NOW, Lsn(shop.lsn + 5), 1), Entry(name, NOW, mark="a" * 12)]
    fields = {entry.field: entry.value for entry in both}

    def reads_from() -> str:
        with router.request_context() as context:
            carrier.arrive(context.pins, (), router.pins.carrier.Stored(fields, None))
            return shop.reads_from()

    assert reads_from() == "primary"
    now += 1
    shop.lsn += 5
    shop.behind()
    assert reads_from() == "primary"
    now += 1
    shop.caught_up()
    assert reads_from() == "replica"


def test_sharing_by_hand() -> None:
    """A webhook shares its pins with the user it writes for; without a write there is nothing
    to share. A store for asyncio needs the other method."""
    store = MemoryPinStore()
    carrier, shop = PinCarrier(SECRET, store=store), Shop()
    with router.request_context():
        assert carrier.share("me")
        assert len(store) == 0
        shop.write()
        assert carrier.share("me")
        assert current_context().pins.changes == 2
    assert set(store.load(key("me"))) == {carrier.tokens.ids(shop.name)[0] + "?"}
    later = PinCarrier(SECRET, store=AsyncRedisPinStore.from_url("redis://127.0.0.1:1"))
    with pytest.raises(ConfigError, match="asyncio"):
        later.share("me")


@pytest.mark.parametrize("cooldown", [DOUBT, -1.0])
def test_a_breaker_open_for_too_long_is_refused(cooldown: float) -> None:
    """A breaker must close before others trust the store again."""
    with pytest.raises(ConfigError, match="cooldown"):
        RedisPinStore.from_url("redis://127.0.0.1:1", cooldown=cooldown)


def test_callers_have_no_names_in_a_store() -> None:
    """A key shows neither the caller's name nor its length."""
    assert key("me@example.org") != key("you@example.org")
    assert len(key("x" * 10_000)) == len(key("")) == 32
    assert key("\udcff") != key("")
