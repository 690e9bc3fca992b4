"""Run simulations from the command line.

    python -m tests.simulation.run [--seed N] [--seeds COUNT] [--operations N] [--faults KIND …]
"""

import argparse
import sys
import time

from tests.simulation.faults import Saboteur
from tests.simulation.simulation import Simulation


def main() -> int:
    """Run; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after another")
    parser.add_argument("--operations", type=int, default=2000, help="statements in each")
    parser.add_argument("--faults", nargs="*", choices=Saboteur.KINDS, help="kinds to draw from")
    parser.add_argument("--keep-on", action="store_true", help="go on past a broken promise")
    options = parser.parse_args()
    kinds = Saboteur.KINDS if options.faults is None else tuple(options.faults)
    began, operations, bad = time.perf_counter(), 0, 0
    for seed in range(options.seed, options.seed + options.seeds):
        simulation = Simulation(seed, operations=options.operations, kinds=kinds)
        history = simulation.run()
        operations += history.operations
        if history.violations:
            bad += 1
            print(f"seed {seed}: {len(history.violations)} broken promises; {simulation.setting}")
            for violation in history.violations[:5]:
                print(" ", str(violation)[:600])
            for fault in history.faults:
                print("  fault", fault)
            if not options.keep_on:
                break
    seconds = time.perf_counter() - began
    rate = operations / seconds * 60
    print(f"{operations} operations in {seconds:.1f} s ({rate:,.0f} a minute); {bad} seeds bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
