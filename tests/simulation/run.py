"""Run simulations, seed after seed, and tell the first broken promise.

    python -m tests.simulation.run [--seed N] [--seeds COUNT] [--operations N] [--faults KIND …]

A seed that breaks a promise breaks it again: `--seed N` replays it, with the same other options.
Exits with 1 if one was broken.
"""

import argparse
import sys
import time

from tests.simulation import interrupts

if "--interrupts" in sys.argv:
    interrupts.install()  # before anything imports the router

from tests.simulation.faults import Saboteur
from tests.simulation.simulation import OPERATIONS, Simulation
from tests.simulation.trace import shrunk, story

PROGRESS = 10.0
"""Seconds between two lines that say how far it is."""


def main() -> int:
    """Run; 1 if a promise was broken."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="tests.simulation.run", description=__doc__, formatter_class=raw
    )
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after another")
    parser.add_argument("--operations", type=int, default=OPERATIONS, help="statements in each")
    parser.add_argument("--faults", nargs="*", choices=Saboteur.KINDS, help="kinds to draw from")
    parser.add_argument("--interrupts", action="store_true", help="also between two statements")
    parser.add_argument("--keep-on", action="store_true", help="go on past a broken promise")
    parser.add_argument("--plain", action="store_true", help="look for no smaller run")
    options = parser.parse_args()
    kinds = Saboteur.KINDS if options.faults is None else tuple(options.faults)
    began = told = time.perf_counter()
    operations, ran, bad = 0, 0, 0
    for seed in range(options.seed, options.seed + options.seeds):
        simulation = Simulation(seed, operations=options.operations, kinds=kinds)
        history = simulation.run()
        operations += history.operations
        ran += history.ran
        if history.violations:
            bad += 1
            print(story(simulation, history.violations[0]), flush=True)
            print(f"  and {len(history.violations) - 1} more")
            judge = history.violations[0].judge
            smaller = None if options.plain else shrunk(seed, simulation.setting, judge)
            if smaller is not None:
                first = next(v for v in smaller.history.violations if v.judge == judge)
                print("smaller:", story(smaller, first), sep="\n", flush=True)
            if not options.keep_on:
                break
        if time.perf_counter() - told > PROGRESS:
            told = time.perf_counter()
            print(f"seed {seed}: {operations:,} statements, {bad} seeds bad", flush=True)
    minutes = (time.perf_counter() - began) / 60
    rates = f"{operations / minutes:,.0f} a minute; servers ran {ran / minutes:,.0f} a minute"
    print(f"{operations:,} statements of clients, {rates}; {bad} seeds broke a promise")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
