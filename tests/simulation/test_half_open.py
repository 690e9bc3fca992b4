"""How long either side of a connection takes to find that the other is gone."""

from collections.abc import Callable
from random import Random

import psycopg
import pytest

from tests.simulation.driver import Line, Network
from tests.simulation.half_open import SERVER_TIMEOUT, USER_TIMEOUT, cut_off, hear_again, reset
from tests.simulation.postgres import INCREMENT, ONE, World
from tests.simulation.scheduler import Scheduler


class Net:
    """A network, and one connection to the primary."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(Random(1))
        self.world = World(Random(1))
        self.network = Network(self.scheduler, self.world, Random(1))
        self.primary = self.world.servers[0]
        self.line = Line(self.network, self.primary.port)
        self.run(lambda: self.line.open("app", 3.0))

    def run(self, *calls: Callable[[], object]) -> None:
        """Run each of `calls` in a thread of its own, to the end."""
        for thread in [self.scheduler.spawn(call, "test") for call in calls]:
            self.scheduler.run(thread, 1000.0)
        assert not self.scheduler.crashes, self.scheduler.crashes

    def fails(self) -> float:
        """Seconds after which a statement ends in an error."""
        began = self.scheduler.now
        with pytest.raises(psycopg.OperationalError):
            self.line.ask([(ONE, None)])
        return self.scheduler.now - began


@pytest.fixture
def net() -> Net:
    return Net()


def test_what_is_sent_over_a_forgotten_connection_ends_with_the_kernels_patience(net: Net) -> None:
    took: list[float] = []
    net.run(lambda: cut_off(net.network, net.primary), lambda: took.append(net.fails()))
    assert took == [pytest.approx(USER_TIMEOUT, abs=0.01)]
    net.run(lambda: Line(net.network, net.primary.port).open("app", 3.0))


def test_a_server_keeps_the_locks_of_a_client_that_is_gone_for_a_while(net: Net) -> None:
    def write() -> None:
        net.line.ask([("BEGIN", None), (INCREMENT, {"id": 1})])
        cut_off(net.network, net.primary)

    net.run(write)
    (lock,) = net.primary.locks.values()
    net.world.advance(net.scheduler.now + SERVER_TIMEOUT - 0.1)
    assert not lock.over
    net.world.advance(net.scheduler.now + SERVER_TIMEOUT + 0.1)
    assert lock.over


def test_a_machine_that_is_back_resets_what_it_does_not_know(net: Net) -> None:
    took: list[float] = []

    def lose() -> None:
        lines = cut_off(net.network, net.primary)
        net.primary.lose_power(net.scheduler.now)
        net.scheduler.sleep(5.0)
        reset(net.network, lines)
        took.append(net.fails())

    net.run(lose)
    assert took == [pytest.approx(0.0, abs=0.01)]


def test_who_waits_hears_of_a_machine_that_is_back_when_his_kernel_asks_again(net: Net) -> None:
    took: list[float] = []

    def lose() -> None:
        lines = cut_off(net.network, net.primary)
        net.scheduler.sleep(5.0)
        reset(net.network, lines)

    def ask() -> None:
        net.scheduler.sleep(0.1)
        took.append(net.fails())

    net.run(lose, ask)
    assert took == [pytest.approx(6.2, abs=0.01)]


def test_a_close_that_nobody_heard_arrives_when_packets_do_again(net: Net) -> None:
    net.network.links[net.primary.port].deaf = True
    net.line.close()
    session = net.line.session
    assert session is not None
    assert session.open
    net.run(lambda: hear_again(net.network, net.primary))
    assert not session.open
