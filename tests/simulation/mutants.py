"""Faults put into the router on purpose: the simulation has to find each.

    python -m tests.simulation.mutants [NAME …] [--seeds N] [--operations N]

Each is one replacement in a copy of the package; the copy runs seeds until a promise is broken.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
"""Within which each has to be found, on one core."""


class Mutant(NamedTuple):
    """A fault: in `file`, `old` becomes `new`; found under faults of `kinds`, by default any."""

    name: str
    file: str
    old: str
    new: str
    kinds: tuple[str, ...] = ()


M = Mutant
MOVES = ("promote", "switchover", "split brain", "kill primary")
LATE = ("pause replay", "lag")
ENDS = ("kill replica", "terminate", "idle time-out", "restart primary")
BOUNCES = ("bounce replica", "bounce primary", "restart all")

MUTANTS = (
    # -- rules: where a statement may go ---------------------------------------------------------
    M("pinned reads go to any replica", "rules/decide.py",
      "        replicas = caught_up(view, pin, policy, now)\n        if not replicas:",
      "        if not replicas:", LATE),
    M("last read forgotten", "rules/decide.py",
      "    if last is not None and replicas:\n", "    if last is not None and not replicas:\n", LATE),
    M("writes go to a replica's transaction", "rules/decide.py",
      "        if intent.kind is not READ and intent.kind is not SESSION:  # row 3",
      "        if intent.kind is not READ and intent.kind is not SESSION and not policy:  # row 3"),
    M("explicit transactions begin on replicas", "rules/decide.py",
      "transaction is Transaction.EXPLICIT and not policy.lazy_transactions",
      "transaction is Transaction.EXPLICIT and policy.lazy_transactions", LATE),
    M("using_primary ignored", "rules/decide.py",
      "    if force is not None:  # row 1", "    if force == 'replica':  # row 1", LATE),
    M("reads in a transaction on the primary leave it", "rules/situation.py",
      "    if on_primary:\n        return Transaction.ON_PRIMARY\n", "", LATE),
    M("read alone though pinned", "rules/decide.py",
      "        or pins.by_cluster\n", "", LATE),
    M("read alone though pins arrived", "rules/decide.py", "        or pins.arrived\n", "", LATE),
    M("read alone though it read elsewhere", "rules/decide.py",
      "        if last.node is not held or report is None or report.since > last.at:\n"
      "            return None\n", "        pass\n", LATE),
    M("one more on a superseded primary", "rules/decide.py",
      "decision.nodes[0] is not primary or view.timeline != timeline:",
      "not primary:", ("split brain",)),
    M("going on where the replica shows less", "rules/decide.py",
      "        if force is None and shows_less(node, view, policy, pin, last, now):",
      "        if False:", LATE),
    # -- pins --------------------------------------------------------------------------------------
    M("a pin resolved by a sample from before", "model.py",
      "        if not samples or samples[-1].started <= at:\n            return None\n",
      "        if not samples:\n            return None\n", LATE),
    M("a pin satisfied by one replica", "rules/pin.py", "    return all(\n", "    return any(\n", LATE),
    M("a pin ends by time too early", "rules/pin.py",
      "        return pin.waited(now) >= policy.pin_duration\n    if pin.lsn is None",
      "        return pin.waited(now) >= policy.pin_duration / 50\n    if pin.lsn is None", LATE),
    M("reads caught up a byte too early", "rules/pin.py",
      "and at >= lsn\n    )\n    return view", "and at >= lsn - 4096\n    )\n    return view", LATE),
    M("the pin is not renewed after the commit", "checkout/transaction.py",
      "        for context in self._writers:\n            self.router.pinning.wrote(context, done=True)\n",
      "", LATE),
    M("no pin before the write is sent", "cluster/pinning.py",
      "            context.pins.set(self._state.cluster, Pin(now))\n            if done:",
      "            if done:\n                context.pins.set(self._state.cluster, Pin(now - 1))\n"
      "            if done:", LATE),
    M("a read is not remembered", "cluster/pinning.py",
      "            context.pins.reads[self._state.cluster] = LastRead(node, self._state.clock())\n",
      "            pass\n", LATE),
    M("arrived pins are older than they are", "pins/carrier.py",
      "            pin = Pin(at, entry.lsn, entry.timeline, age)",
      "            pin = Pin(at - 1, None, 0, age)", LATE),
    M("a token without pins that have no position", "pins/carrier.py",
      "            else Entry(name, wall - pin.waited(now), mark=secrets.token_hex(6))\n"
      "            for name, pin in found.items()\n",
      "            else Entry(name, wall - pin.waited(now), mark=secrets.token_hex(6))\n"
      "            for name, pin in found.items() if pin.lsn is not None\n", LATE),
    M("two pins covered by the lesser position", "rules/context.py",
      "    return Pin(at, max(one.lsn, other.lsn), one.timeline, age)",
      "    return Pin(at, min(one.lsn, other.lsn), one.timeline, age)", LATE),
    # -- retries -----------------------------------------------------------------------------------
    M("writes are sent again", "rules/retry.py",
      "    if intent.kind not in (Kind.READ, Kind.SESSION) or not fresh or bound:",
      "    if not fresh or bound:", ("far primary",)),
    M("a retry in the middle of a transaction", "rules/retry.py",
      "or not fresh or bound:", "or bound:", ("terminate",)),
    M("a retry forgets that the transaction is explicit", "checkout/retry.py",
      "    again = checkout.route(route.sql, **route.asked._asdict(), intent=intent, failed=failed)",
      "    again = checkout.route(route.sql, explicit=False, intent=intent, failed=failed)",
      ("terminate", "idle time-out", "restart primary")),
    M("going on without a lost transaction", "checkout/connections.py",
      "        if not held.broken or not (held.in_transaction or self.bound):\n            return\n",
      "        if not held.broken or held.broken:\n            return\n", ("terminate",)),
    M("a broken commit counts as failed", "checkout/transaction.py",
      "            if not primary.report_failure(error):\n                raise\n            self.drop(primary)\n",
      "            self.drop(primary)\n            raise\n", ("kill primary", "terminate")),
    M("conflicts are the caller's", "rules/retry.py",
      'CONFLICT = frozenset({"40001", "40P01"})', 'CONFLICT = frozenset({"XX999"})', ("conflicts",)),
    # -- primary and timelines ---------------------------------------------------------------------
    M("the old primary is followed again", "cluster/roles.py",
      "        if r.timeline >= known\n", "        if r.timeline >= 0\n", ("promote",)),
    M("the lowest timeline leads", "cluster/roles.py",
      "timeline == max(valid.values())", "timeline == min(valid.values())", ("split brain",)),
    M("the new timeline is not noted", "cluster/roles.py",
      "        timeline, samples = mine.timeline, ()\n", "        samples = ()\n", ("split brain", "promote")),
    M("writes go on to a superseded primary", "model.py",
      "        if node.name in self.fenced or 0 < timeline < self.timeline:\n            return True\n"
      "        return primary is not None and (",
      "        return primary is None and (", ("split brain",)),
    M("a commit on a replaced server counts", "checkout/connections.py",
      "        if held is not self.primary or not self.superseded(held):\n            return\n",
      "        if held is not None:\n            return\n", ("split brain",)),
    M("replicas of the old primary are read", "cluster/eligible.py",
      "    if node.name in snapshot.strays:\n        return False\n", "", ("split brain", "cut off")),
    M("a new primary may be read as a replica", "checkout/connections.py",
      "        if silent or (node not in known.replicas and node is not known.primary):",
      "        if silent:", BOUNCES),
    M("a replica that came back older is read", "cluster/eligible.py",
      "    return _regained(snapshot, report) and _near(snapshot, report)",
      "    return _near(snapshot, report)", ("bounce replica",)),
    M("a break is not noted", "cluster/health.py",
      "        self._state.see(lambda snapshot: snapshot.interrupted(node.name, now))",
      "        pass", ("bounce replica",)),
    M("replayed counts on any timeline", "model.py",
      "        if report.timeline == self.timeline:\n            return report.lsn\n        branch",
      "        if report.timeline:\n            return report.lsn\n        branch", ("cut off",)),
    M("the old primary is read as a replica of the new", "cluster/eligible.py",
      "report.role is not Role.REPLICA:", "report.role is None:", ("split brain", "promote")),
    M("a replica that came back is trusted", "cluster/reports.py",
      "    return report.reconnected > before.reconnected", "    return False", ("restart all", "bounce replica")),
    # -- health and monitor ------------------------------------------------------------------------
    M("failed nodes stay in", "cluster/health.py",
      "        entry = self._state.kept_out.add(", "        entry = None and self._state.kept_out.add(", ("terminate",)),
    M("the blacklist never ends", "rules/blacklist.py",
      "return now >= self.until", "return now >= self.until + 1e6", ("terminate", "kill replica")),
    M("lag is not looked at", "cluster/eligible.py",
      "    return near or fresh", "    return True", LATE),
    M("the last answer is believed for ever", "cluster/prober.py",
      "            return Report(name, self._asked, error=silent, silent_since=since)\n        if self._s",
      "            return None\n        if self._s", ("freeze replica", "deaf replica")),
    M("probes stop after the first failure", "cluster/probe_loop.py",
      "        for node in nodes:\n            if node not in probing:",
      "        for node in nodes:\n            if node not in probing and not self._rounds:"),
    # -- session state -----------------------------------------------------------------------------
    M("settings are not replayed", "checkout/node_connection.py",
      "            self.run(entry.sql, entry.parameters)\n", ""),
    M("settings leak to the next user", "checkout/node_connection.py",
      "            if self.applied and not self.restore_settings():",
      "            if self.applied and not self.applied:"),
    M("what a rollback undid is replayed", "rules/journal.py",
      "            del self.entries[self._start :]\n            self._start = None\n        if self._sav",
      "            self._start = None\n        if self._sav"),
    M("SET LOCAL outlives its transaction", "checkout/node_connection.py",
      "            self.run(entry.sql, entry.parameters)\n",
      "            self.run(entry.sql.replace('LOCAL', ''), entry.parameters)\n"),
    M("a primary that is replaced while settings are replayed gets the write",
      "checkout/preparation.py",
      "    if held is not checkout.primary or not checkout.superseded(held):",
      "    if held is not None:", ("split brain",)),
    M("a value local to a transaction is put back", "checkout/node_connection.py",
      " and not self._is_changed(n)]", "]"),
    M("a broken write in autocommit counts as failed", "rules/retry.py",
      "    return not any(said in text", "    return False and not any(said in text", (*ENDS, "kill primary")),
    M("a receiver's timeline is believed", "model.py",
      " and report.replays\n", "\n", ("stranded",)),
    # -- source and pools --------------------------------------------------------------------------
    M("a transaction goes back open", "checkout/node_connection.py",
      '                self.end("rollback")\n                self.in_transaction = False\n',
      '                self.end("commit")\n                self.in_transaction = False\n'),
    M("a transaction goes on at a replaced primary", "checkout/connections.py",
      "        fenced = self.superseded(held)\n", "        fenced = False\n", ("split brain",)),
    M("the replica's connection is never given back", "checkout/transaction.py",
      "            if replica is not None:\n                replica.release(self.journal)\n",
      "            pass\n"),
    M("a discarded connection stays in its pool's count", "psycopg/node_connection.py",
      "            if self.pool is not None:\n                self.pool.putconn(self.dbapi)\n",
      "            pass\n", ENDS),
    M("old connections are trusted after a break", "psycopg/connection.py",
      "        return not line.dbapi.closed and not doubted and not self.interrupted(node, line)",
      "        return True", BOUNCES),
    M("a connection lives from when it was first lent", "psycopg/source.py",
      "getattr(dbapi, _ADMITTED, self.router.clock())", "self.router.clock()", BOUNCES),
    M("the monitor's connections are left open", "cluster/prober.py",
      "        if connection is not None:\n            connection.close()\n", "        pass\n"),
)  # fmt: skip


def find(mutant: Mutant, seeds: int, operations: int, seconds: float) -> tuple[float, str]:
    """Seconds until it was found, and what broke; negative where it was not."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as home:
        package = Path(home) / "router"
        shutil.copytree(ROOT / "router", package, ignore=shutil.ignore_patterns("__pycache__"))
        path = package / mutant.file
        text = path.read_text()
        if text.count(mutant.old) < 1:
            return -2.0, "its text is not there any more"
        path.write_text(text.replace(mutant.old, mutant.new, 1))
        command = [sys.executable, "-m", "tests.simulation.run", "--seeds", str(seeds)]
        command += ["--operations", str(operations), "--plain"]
        if mutant.kinds:
            command += ["--faults", *mutant.kinds]
        began = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": f"{home}{os.pathsep}{ROOT}"}
        try:
            done = subprocess.run(
                command, cwd=home, env=environment, capture_output=True, text=True,
                timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return -1.0, f"not within {seconds:g} s"
        took = time.perf_counter() - began
        if done.returncode == 0:
            return -1.0, done.stdout.strip().splitlines()[-1]
        lines = (done.stdout + done.stderr).strip().splitlines()
        return took, next((s for s in lines if " broken at " in s), lines[-1])


def main() -> int:
    """Look for all; 1 if one is not found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="words of their names")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    missed = 0
    for mutant in MUTANTS:
        if options.names and not any(name in mutant.name for name in options.names):
            continue
        took, said = find(mutant, options.seeds, options.operations, options.seconds)
        missed += took < 0
        print(f"{took:7.1f} s  {mutant.name}: {said[:150]}", flush=True)
    print(f"{missed} were not found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
