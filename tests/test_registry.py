"""What a forked child finds: locks that are free, and nobody's half-done work."""

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from router import registry
from router.cluster.router import Router
from router.config.config import Config
from tests.forks.kit import ended, fork


@contextmanager
def held_elsewhere(lock: Any) -> Iterator[None]:
    """Another thread holds `lock`."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    yield
    done.set()
    thread.join()


def test_a_lock_held_by_another_thread_is_free_in_the_child() -> None:
    """The child takes it, and may leave it to be taken again; in the parent it stays held. The
    fork is held up for a moment at most."""
    lock: Any = registry.lock()

    def child() -> None:
        for _ in range(2):
            assert lock.acquire(timeout=1)
            lock.release()

    with held_elsewhere(lock):
        began = time.monotonic()
        pid = fork(child)
        assert time.monotonic() - began < 2
        assert not lock.acquire(blocking=False)
        assert ended(pid) == "fine"


def test_a_lock_held_by_the_thread_that_forks_stays_so() -> None:
    """In the parent and in the child alike: the block that holds it ends as it began."""
    lock: Any = registry.lock()

    def child() -> None:
        assert lock._is_owned()
        lock.release()
        assert not lock._is_owned()
        assert lock.acquire(timeout=1)

    with lock:
        assert ended(fork(child)) == "fine"
        assert lock._is_owned()
    assert not lock._is_owned()


def test_a_fork_waits_for_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done under a lock in some milliseconds is done wholly, as the child sees it."""
    monkeypatch.setattr(registry, "PATIENCE", 30.0)
    lock, begun, state = registry.lock(), threading.Event(), [0, 0]

    def change() -> None:
        with lock:
            state[0] = 1
            begun.set()
            time.sleep(0.05)  # the work
            state[1] = 1

    def child() -> None:
        assert state == [1, 1]

    thread = threading.Thread(target=change)
    thread.start()
    begun.wait()
    pid = fork(child)
    thread.join()
    assert ended(pid) == "fine"


def test_one_that_raises_keeps_none_from_being_renewed() -> None:
    """Whatever a renewal raises, all others are done."""

    class Thing:
        def __init__(self) -> None:
            self.renewed = False
            registry.renew(self)

        def after_fork(self) -> None:
            self.renewed = True
            raise RuntimeError("told as one that is ignored")

    things = [Thing(), Thing(), Thing()]

    def child() -> None:
        assert [thing.renewed for thing in things] == [True] * 3

    assert ended(fork(child)) == "fine"
    assert not any(thing.renewed for thing in things)


def test_what_is_no_more_is_not_kept() -> None:
    """Locks, and things to be renewed, are known for as long as they live."""
    gc.collect()
    before = len(registry._locks), len(registry._things)
    routers = [Router(Config.from_url("postgresql://db1/shop", ["db2"])) for _ in range(3)]
    assert (len(registry._locks), len(registry._things)) > before
    del routers
    assert (len(registry._locks), len(registry._things)) == before


@pytest.mark.parametrize("balance", ["weighted", "round_robin", "least_outstanding", "latency"])
def test_children_do_not_choose_in_step(balance: Any) -> None:
    """Two workers forked one after the other do not send the same reads to the same replicas."""
    replicas = [f"db{n}" for n in range(100)]
    router = Router(Config.from_url("postgresql://db/shop", replicas, balance=balance))
    nodes = tuple(n for n in router.snapshot.nodes if n is not router.primary)
    chosen = []
    for _ in range(5):
        reader, writer = os.pipe()

        def child(writer: int = writer) -> None:
            os.write(writer, " ".join(router.balance(nodes).name for _ in range(8)).encode())

        assert ended(fork(child)) == "fine"
        chosen.append(os.read(reader, 4096))
        os.close(reader)
        os.close(writer)
    assert len(set(chosen)) > 1
