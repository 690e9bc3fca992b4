"""Pins on their way from one context to another, as tokens and as headers of messages."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

import router
from router.model import Lsn
from router.pins.carrier import HEADER, REMEMBERED, Met, PinCarrier
from router.pins.token import Entry
from router.rules.context import ROOT, Arrivals, Pin, RoutingContext, covering, current_context
from tests.pins.kit import SECRET, Shop


class Clocks:
    """Time that passes when told: monotonic and wall clock of one host."""

    def __init__(self) -> None:
        self.now, self.wall = 100.0, 1_700_000_000.0

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def carrier(self, secret: Any = SECRET, **options: Any) -> PinCarrier:
        return PinCarrier(secret, clock=lambda: self.now, wall=lambda: self.wall, **options)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def shop(clocks: Clocks) -> Shop:
    shop = Shop(clock=lambda: clocks.now)
    clocks.pass_(1)
    return shop


def written(shop: Shop, carrier: PinCarrier) -> dict[str, str]:
    """The headers of a request that has written."""
    with router.request_context():
        shop.write()
        return carrier.headers()


def test_a_pin_with_a_position_is_satisfied_where_the_replica_has_it(
    shop: Shop, clocks: Clocks
) -> None:
    """A token with a position sends its reader to the primary until the replica has got there."""
    carrier = clocks.carrier()
    with router.request_context():
        shop.write()
        clocks.pass_(0.01)
        shop.behind()
        headers = carrier.headers()
    with carrier.received(headers) as context:
        assert shop.reads_from() == "primary"
        pin = context.pins.get(shop.name)
        assert pin is not None
        assert (pin.lsn, pin.timeline) == (Lsn(1001), 1)
    shop.caught_up()
    with carrier.received(headers) as context:
        assert shop.reads_from() == "replica"
        assert context.pins.get(shop.name) is None


def test_a_pin_without_a_position_holds_until_a_later_sample(shop: Shop, clocks: Clocks) -> None:
    """An unknown position means the moment the token first arrived: what was known before does
    not satisfy it, what is found afterwards does, for every later request at once."""
    carrier = clocks.carrier()
    headers = written(shop, carrier)
    clocks.pass_(0.01)
    with carrier.received(headers):
        assert shop.reads_from() == "primary"
    clocks.pass_(0.01)
    shop.behind()
    with carrier.received(headers):
        assert shop.reads_from() == "primary"
    clocks.pass_(0.01)
    shop.caught_up()
    with carrier.received(headers):  # a new context, which no probe was started in
        assert shop.reads_from() == "replica"


def test_two_unknown_positions_are_two(shop: Shop, clocks: Clocks) -> None:
    """A later token is not taken for an earlier one that has been satisfied."""
    carrier = clocks.carrier()
    first = written(shop, carrier)
    clocks.pass_(0.01)
    with carrier.received(first):
        assert shop.reads_from() == "primary"
    second = written(shop, carrier)
    clocks.pass_(0.01)
    shop.caught_up()
    with carrier.received(first):
        assert shop.reads_from() == "replica"
    with carrier.received(second):
        assert shop.reads_from() == "primary"


def test_a_waiting_pin_hurries_the_probes(shop: Shop, clocks: Clocks) -> None:
    """A pin that came from elsewhere counts as a write of its moment for the monitor, once, and
    not when it is satisfied already."""
    carrier = clocks.carrier()
    headers = written(shop, carrier)
    shop.router.last_write = float("-inf")  # as in another process
    clocks.pass_(0.01)
    with carrier.received(headers):
        shop.reads_from()
    assert shop.router.last_write == clocks.now
    clocks.pass_(0.01)
    with carrier.received(headers):
        shop.reads_from()
    assert shop.router.last_write == pytest.approx(clocks.now - 0.01)
    shop.caught_up()
    clocks.pass_(0.01)
    shop.router.last_write = float("-inf")
    with carrier.received(headers):
        assert shop.reads_from() == "replica"
    assert shop.router.last_write == float("-inf")


def test_nothing_to_say(shop: Shop, clocks: Clocks) -> None:
    """A context without writes, or whose writes every replica has, gives no headers."""
    carrier = clocks.carrier()
    with router.request_context():
        assert carrier.headers() == {}
        assert carrier.token() is None
        shop.write()
        clocks.pass_(0.01)
        shop.caught_up()
        assert carrier.headers() == {}


def test_pins_of_other_services_travel_on(clocks: Clocks) -> None:
    """A service that does not know a cluster hands its pin on, and counts it as foreign."""
    carrier, ours, theirs = clocks.carrier(), Shop(clock=lambda: clocks.now), "billing"
    foreign = Entry(carrier.tokens.ids(theirs)[0], clocks.wall - 5, Lsn(77), 3)
    token = carrier.tokens.sign([foreign])
    with carrier.received({HEADER: token}):
        assert ours.reads_from() == "replica"
        ours.write()
        passed_on = carrier.token()
    assert passed_on is not None
    found = carrier.tokens.read(passed_on, clocks.wall)
    assert isinstance(found, tuple)
    assert {e.id for e in found} == {foreign.id, carrier.tokens.ids(ours.name)[0]}
    assert foreign in found
    assert carrier.stats()["token_foreign"] == 1


def test_each_cluster_has_its_own_pin(clocks: Clocks) -> None:
    """One token carries the pins of several clusters; each ends by its own replicas."""
    carrier = clocks.carrier()
    one, two, three = (Shop(clock=lambda: clocks.now) for _ in range(3))
    with router.request_context():
        one.write()
        two.write()
        clocks.pass_(0.01)
        one.behind()
        two.behind()
        headers = carrier.headers()
    one.caught_up()
    with carrier.received(headers):
        assert [shop.reads_from() for shop in (one, two, three)] == [
            "replica",
            "primary",
            "replica",
        ]


def test_a_script_without_requests_has_headers_too(shop: Shop, clocks: Clocks) -> None:
    """Outside any request the process's own pins are what a job is given."""
    carrier = clocks.carrier()
    ROOT.pins.clear()  # a token has room for eight clusters, and other tests have pinned theirs
    shop.write()
    try:
        headers = carrier.headers()
    finally:
        ROOT.pins.clear()
    assert shop.reads_from() == "replica"
    with carrier.received(headers):
        assert shop.reads_from() == "primary"


def test_a_router_made_later_finds_its_pin(clocks: Clocks) -> None:
    """A token is read before the engine exists: the pin waits for it."""
    carrier = clocks.carrier()
    name = "made-later"
    entry = Entry(carrier.tokens.ids(name)[0], clocks.wall, Lsn(2000), 1)
    with carrier.received({HEADER: carrier.tokens.sign([entry])}):
        late = Shop(name=name, clock=lambda: clocks.now)
        assert late.reads_from() == "primary"
    with router.request_context():
        assert late.reads_from() == "replica"


def test_a_pin_of_a_timeline_yet_to_come_waits(shop: Shop, clocks: Clocks) -> None:
    """A position of a promotion this process has not met is covered by nothing it knows."""
    carrier = clocks.carrier()
    entry = Entry(carrier.tokens.ids(shop.name)[0], clocks.wall, Lsn(900), 2)
    with carrier.received({HEADER: carrier.tokens.sign([entry])}):
        assert shop.reads_from() == "primary"
        clocks.pass_(0.01)
        shop.caught_up()
        assert shop.reads_from() == "primary"
        shop.caught_up(timeline=2)
        assert shop.reads_from() == "replica"


def test_time_pins_count_from_the_write(clocks: Clocks) -> None:
    """With ``consistency="time"`` a carried pin ends `pin_duration` after the write, however
    often it is brought."""
    carrier = clocks.carrier()
    timed = Shop(clock=lambda: clocks.now, consistency="time", pin_duration=5)
    headers = written(timed, carrier)
    for _ in range(4):
        clocks.pass_(1.0)
        with carrier.received(headers):
            assert timed.reads_from() == "primary"
    clocks.pass_(1.1)
    with carrier.received(headers):
        assert timed.reads_from() == "replica"


def test_a_service_without_replicas_pins_for_others(clocks: Clocks) -> None:
    """A writer that knows only the primary still gives a token, without a position."""
    carrier, writer = clocks.carrier(), Shop(replicas=0, clock=lambda: clocks.now)
    with router.request_context():
        writer.write()
        assert writer.reads_from() == "primary"
        (entry,) = carrier.entries(current_context())
    assert entry.lsn is None


BAD = {
    "tampered": lambda good: good[:-3] + "AAA",
    "truncated": lambda good: good[: len(good) // 2],
    "long": lambda good: good * 20_000,
    "empty": lambda good: "~",
    "not text": lambda good: "\udcff\x00é",
    "another secret": lambda good: PinCarrier("another secret altogether").tokens.sign(
        [Entry("0" * 16, 1_700_000_000.0, Lsn(1), 1)]
    ),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_token_is_ignored_and_counted(
    bad: Any, shop: Shop, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    """A token that is not ours changes nothing; it is counted, and said once."""
    carrier = clocks.carrier()
    headers = {HEADER: bad(written(shop, carrier)[HEADER])}
    for _ in range(3):
        with carrier.received(headers) as context:
            assert shop.reads_from() == "replica"
            assert context.pins.arrived is None
    stats = carrier.stats()
    assert stats["token_ignored"] == 3
    assert stats.get("token_tampered", 0) + stats.get("token_too_long", 0) == 3
    assert sum("token_ignored" in record.message for record in caplog.records) <= 1


def test_an_old_token_is_ignored_and_counted(shop: Shop, clocks: Clocks) -> None:
    """A token older than `max_age` changes nothing."""
    carrier = clocks.carrier(max_age=30.0)
    headers = written(shop, carrier)
    clocks.pass_(31)
    with carrier.received(headers):
        assert shop.reads_from() == "replica"
    assert carrier.stats()["token_expired"] == 1


def test_headers_of_any_kind(shop: Shop, clocks: Clocks) -> None:
    """Names in any case and bytes are found, callables are asked when the block is entered."""
    carrier = clocks.carrier()
    token = written(shop, carrier)[HEADER]
    given: list[Mapping[Any, Any]] = [
        {HEADER: token},
        {HEADER.upper(): token, "other": 3, 4: None},
        {HEADER.encode(): token.encode()},
    ]
    for headers in given:
        with carrier.received(headers):
            assert shop.reads_from() == "primary"
    calls = iter(given)
    for _ in given:
        with carrier.received(lambda: next(calls)):
            assert shop.reads_from() == "primary"
    nothing: list[Any] = [{}, None, lambda: None]
    for headers in nothing:
        with carrier.received(headers):
            assert shop.reads_from() == "replica"


def test_jobs_as_decorators_and_coroutines(shop: Shop, clocks: Clocks) -> None:
    """Each call of a decorated job enters a context with the pins of its own message."""
    carrier = clocks.carrier()
    message: dict[str, str] = {}

    @carrier.received(lambda: message)
    def job() -> str:
        return shop.reads_from()

    @carrier.received(lambda: message)
    async def task() -> str:
        await asyncio.sleep(0)
        return shop.reads_from()

    assert (job(), asyncio.run(task())) == ("replica", "replica")
    message.update(written(shop, carrier))
    assert (job(), asyncio.run(task())) == ("primary", "primary")


def test_a_second_process_reads_the_token(clocks: Clocks) -> None:
    """A worker started on its own finds position and cluster in the headers it is given."""
    carrier = PinCarrier(SECRET)
    shop = Shop(name="over-there")
    with router.request_context():
        shop.write()
        shop.behind()
        headers = carrier.headers()
    code = """
import sys
from router import PinCarrier, current_context
carrier = PinCarrier(sys.argv[1])
with carrier.received({"X-PG-Router-Pin": sys.argv[2]}):
    pin = current_context().pins.get("over-there")
    print(pin.lsn, pin.timeline, carrier.stats())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, SECRET, headers[HEADER]],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "0/3E9 1 {'token_read': 1}"


def test_what_a_process_remembers_is_bounded() -> None:
    """First arrivals are kept up to a number; the oldest goes first, and is met anew."""
    met = Met(2)
    one, two, three = (Entry("0" * 16, float(i), mark="a" * 12) for i in range(3))
    assert [met.first(e, at) for e, at in ((one, 1.0), (two, 2.0), (one, 3.0))] == [1, 2, 1]
    assert met.first(three, 4.0) == 4.0
    assert met.first(one, 5.0) == 5.0
    assert REMEMBERED > 1000


def test_the_pin_that_covers_two() -> None:
    """Of two pins the covering one has the greater position, or none where they do not compare;
    it is as old as the younger."""
    a, b = Pin(5.0, Lsn(10), 1, age=2.0), Pin(7.0, Lsn(9), 1, age=1.0)
    assert covering(a, b) == covering(b, a) == Pin(7.0, Lsn(10), 1, age=1.0)
    assert covering(a, Pin(4.0)) == Pin(5.0, age=1.0)
    assert covering(a, Pin(4.0, Lsn(99), 2, age=9.0)) == Pin(5.0, age=2.0)


def test_arrivals_are_taken_once(shop: Shop) -> None:
    """A pin that arrived is taken by its Router, joined to what is pinned there, and forgotten
    with `unpin`."""
    context = RoutingContext()
    pins = context.pins

    def names(cluster: str) -> tuple[str, ...]:
        return (f"#{cluster}", f"~{cluster}")

    pins.set("c", Pin(1.0, Lsn(5), 1))
    pins.arrive(Arrivals({"#c": Pin(2.0, Lsn(9), 1), "~c": Pin(2.0, Lsn(7), 1)}, names))
    pins.arrive(Arrivals({"#d": Pin(3.0), "#c": Pin(2.0, Lsn(8), 1)}, names))
    assert pins.get("c") == Pin(2.0, Lsn(9), 1)
    pins.clear("c")
    assert pins.get("c") is None
    assert pins.get("d") == Pin(3.0)
    assert pins.arrived is None

    pins.arrive(Arrivals({}, names, everywhere=Pin(4.0)))
    assert (pins.get("e"), pins.get("f")) == (Pin(4.0), Pin(4.0))
    pins.clear("e")
    assert pins.get("e") is None
    pins.clear()
    assert pins.get("g") is None
    assert pins.changes == 1
