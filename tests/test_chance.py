"""The router's own random numbers."""

import multiprocessing
import random

import pytest

from router.runtime import SYSTEM


def test_an_application_that_seeds_keeps_its_sequence() -> None:
    """Drawing here takes nothing from Python's own generator."""
    random.seed(7)
    wanted = [random.random() for _ in range(3)]
    random.seed(7)
    found = []
    for _ in range(3):
        SYSTEM.rand()
        found.append(random.random())
    assert found == wanted


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_forked_children_draw_each_their_own() -> None:
    """Two children of one process do not draw alike."""
    fork = multiprocessing.get_context("fork")
    queue = fork.SimpleQueue()
    children = [fork.Process(target=lambda: queue.put(SYSTEM.rand())) for _ in range(2)]
    for child in children:
        child.start()
    drawn = {queue.get() for _ in children}
    for child in children:
        child.join(10)
    assert len(drawn) == 2
