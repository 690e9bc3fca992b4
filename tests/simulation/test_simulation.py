"""The promises hold in every simulation; it is replayed by its seed, and finds what is wrong."""

import os
import subprocess
import sys

import pytest

from router.sql.catalog import Catalog
from router.sql.classifier import classify
from router.sql.intent import Kind
from tests.simulation.mutants import MUTANTS, ROOT, find
from tests.simulation.patches import CATALOG
from tests.simulation.simulation import Simulation
from tests.simulation.trace import story

SEEDS, GROUPS = 200, 8
OPERATIONS = 700
"""Statements of clients in each: faults take most of the time anyway."""
REPLAYED = (
    "settings were replayed, and another primary followed, before a write was sent to the old"
)
RETIRED = "a pool was retired as it opened its first connections, and who joined it waited in vain"
FOUND: tuple[tuple[int, tuple[str, ...] | None, str], ...] = (
    (0, ("split brain",), REPLAYED),
    (172, None, RETIRED),
)
"""Seeds that broke a promise once, under which faults, and what was wrong then."""

TRIED = (
    "pinned reads go to any replica",
    "reads in a transaction on the primary leave it",
    "a retry in the middle of a transaction",
    "conflicts are the caller's",
)
"""Mutants that every run of CI tries; `nox -s mutants` tries all."""


def holds(seed: int, kinds: tuple[str, ...] | None = None, operations: int = 1000) -> None:
    simulation = Simulation(seed, kinds=kinds, operations=operations)
    history = simulation.run()
    assert not history.violations, story(simulation, history.violations[0])


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_no_promise_is_broken(group: int) -> None:
    """In 200 simulations, each an application of its own under faults of its own, every user saw
    what he wrote, and nothing was lost, doubled, misplaced, leaked or waited for in vain."""
    for seed in range(group, SEEDS, GROUPS):
        holds(seed, operations=OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "kinds", "what"), FOUND)
def test_what_was_found_once_is_not_found_again(
    seed: int, kinds: tuple[str, ...] | None, what: str
) -> None:
    """A seed that broke a promise of an earlier version breaks none now."""
    holds(seed, kinds)


@pytest.mark.slow
def test_no_promise_is_broken_by_interrupts() -> None:
    """Nor where threads are interrupted between any two statements of the router."""
    command = [sys.executable, "-m", "tests.simulation.run", "--interrupts", "--plain"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [*command, "--seed", "1000", "--seeds", "12"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr


REPLAY = """
import hashlib
from tests.simulation.simulation import Simulation

simulation = Simulation(7)
history = simulation.run()
told = repr((history.reads, history.writes, history.actions, history.faults, history.events))
print(history.operations, simulation.scheduler.switches, hashlib.sha256(told.encode()).hexdigest())
"""


def test_its_catalog_is_one() -> None:
    """The rows of the simulated database are as the queries give them: without a catalog every
    statement would run on the primary, and the simulation show little."""
    catalog = Catalog.from_rows(CATALOG)
    assert classify("SELECT * FROM item", catalog).kind is Kind.READ


def test_a_seed_is_replayed() -> None:
    """The same seed gives the same history to the last turn, in another process with other hashes
    of texts, and other addresses."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", REPLAY],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": number},
        ).stdout
        for number in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert int(runs[0].split()[0]) > 500


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIED)
def test_a_fault_put_in_is_found(name: str) -> None:
    """A router that breaks a promise is caught, and told with the seed that shows it."""
    (mutant,) = (each for each in MUTANTS if each.name == name)
    seconds, said = find(mutant, seeds=300, operations=1000, seconds=120.0)
    assert seconds > 0, said
    assert said.startswith("seed ")


def test_every_mutant_changes_the_router() -> None:
    """The text that each of them replaces is in the file that it names."""
    gone = [m.name for m in MUTANTS if m.old not in (ROOT / "router" / m.file).read_text()]
    assert gone == []
    assert len(MUTANTS) >= 40
