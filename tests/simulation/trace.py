"""Tells a broken promise so that a person can follow it, and finds a smaller run of it."""

from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.history import Read, Violation, Write
from tests.simulation.simulation import Setting, Simulation

WINDOW = 1.5
"""Seconds before a broken promise that its story begins with."""
LINES = 60
"""Lines of a story at most: the last ones."""
RUNS = 40
"""Smaller runs that are tried at most."""


def story(simulation: Simulation, violation: Violation) -> str:
    """What led to `violation`: the faults, what the Routers told, what its user did."""
    lines = sorted(_lines(simulation, violation))
    told = [f"{at:9.4f}  {text}" for at, text in lines]
    head = [
        f"seed {simulation.seed}: {violation.judge} broken at {violation.at:.4f}",
        f"  {simulation.setting}",
        f"  {violation.said}",
    ]
    left = len(told) - LINES
    if left > 0:
        head.append(f"  … {left} lines before")
    return "\n".join([*head, *(f"  {line}" for line in told[-LINES:])])


def _lines(simulation: Simulation, violation: Violation) -> Iterator[tuple[float, str]]:
    history, end = simulation.history, violation.at
    begin = end - WINDOW
    for fault in history.faults:
        if fault.at <= end:
            yield fault.at, f"-- {fault.what} {fault.server}"
        if fault.until <= end:
            yield fault.until, f"-- {fault.what} is over"
    for at, process, name, fields in history.events:
        if begin <= at <= end and not name.startswith("pin_"):
            said = " ".join(
                f"{k}={v}" for k, v in fields.items() if k in ("node", "after", "reason")
            )
            yield at, f"process {process} tells: {name} {said[:100]}"
    user = _user(simulation, violation)
    for read in history.reads:
        if begin <= read.done <= end and read.user == user:
            where = f"{read.at.server} {read.at.timeline}/{read.at.lsn:X}"
            said = f"read row {read.key} = {read.value} on {where}, sent {read.sent:.4f}"
            yield read.done, f"{_who(read)} {said}"
    for write in history.writes:
        if begin <= write.done <= end and write.user == user:
            yield (
                write.done,
                (
                    f"{_who(write)} wrote {write.sets or write.ops}: {write.outcome}, "
                    f"begun {write.sent:.4f}"
                ),
            )


def _who(act: Read | Write) -> str:
    return f"user {act.user} request {act.request} process {act.process}"


def _user(simulation: Simulation, violation: Violation) -> int | None:
    """Whose action ended at the moment of `violation`."""
    acts: list[Read | Write] = [*simulation.history.reads, *simulation.history.writes]
    return next((act.user for act in acts if act.done == violation.at), None)


def shrunk(seed: int | str, setting: Setting, judge: str) -> Simulation | None:
    """The smallest run that was found to break the promise of `judge` as well; None where no
    smaller one does."""
    found: Simulation | None = None
    runs = 0
    while True:
        for smaller in _smaller(setting):
            if runs >= RUNS:
                return found
            runs += 1
            tried = Simulation(seed, smaller)
            if any(v.judge == judge for v in tried.run().violations):
                found, setting = tried, smaller
                break
        else:
            return found


def _smaller(setting: Setting) -> Iterator[Setting]:
    for i in range(len(setting.faults)):
        yield replace(setting, faults=setting.faults[:i] + setting.faults[i + 1 :])
    if setting.processes > 1:
        yield replace(setting, processes=setting.processes - 1)
    if setting.users > 2:
        yield replace(setting, users=setting.users // 2)
    if setting.replicas > 1:
        yield replace(setting, replicas=setting.replicas - 1)
    if setting.operations > 100:
        yield replace(setting, operations=setting.operations // 2)
