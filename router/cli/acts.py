"""The acts of the demo: what goes wrong, when, and whether the router has noticed it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from router.cluster.router import Router
from router.testing import Cluster, Server


@dataclass(frozen=True, slots=True)
class Act:
    """One event of the demo.

    Attributes:
        at: when it begins, a fraction of the time.
        title: its name.
        play: performs it.
        notice: what the router should notice of it, empty where nothing.
        noticed: whether it has, given when the act began (monotonic seconds).
    """

    at: float
    title: str
    play: Callable[[], None] = lambda: None
    notice: str = ""
    noticed: Callable[[float], bool] = lambda _: True


def acts(cluster: Cluster, its: Router, note: Callable[[str], None]) -> list[Act]:
    """The acts that happen to `cluster` while the Router `its` routes; `note` prints a line."""
    # Where there are several replicas the heir is another one than the victim.
    victim, heir, old = cluster.replicas[-1], cluster.replicas[0], cluster.primary
    names = [replica.name for replica in cluster.replicas]

    def reads(name: str) -> bool:
        return name in {node.name for node in its.replicas}

    return [
        Act(0.00, "all is well: writes to the primary, reads to the replicas"),
        Act(
            0.15,
            f"{victim.name} is killed",
            victim.kill,
            f"reads leave {victim.name}",
            lambda _: not reads(victim.name),
        ),
        Act(
            0.30,
            f"{victim.name} is started again",
            victim.start,
            f"{victim.name} answered probes and gets reads",
            lambda _: reads(victim.name),
        ),
        Act(
            0.45,
            "replay stands still: who has written reads on the primary",
            lambda: _each(cluster.replicas, Server.pause_replay),
            "every replica is behind",
            lambda _: all(its.snapshot.lag_bytes(name) for name in names),
        ),
        Act(
            0.57,
            "replay goes on: pins end",
            lambda: _each(cluster.replicas, Server.resume_replay),
            "every replica has caught up",
            lambda since: _caught_up(its, names, since),
        ),
        Act(
            0.67,
            f"{old.name} is shut down and {heir.name} promoted",
            lambda: _promote(cluster, old, heir, note),
            f"writes go to {heir.name}",
            lambda _: its.primary is not None and its.primary.name == heir.name,
        ),
        Act(
            0.85,
            f"{old.name} comes back as a replica",
            lambda: cluster.rejoin(old),
            f"{old.name} gets reads",
            lambda _: reads(old.name),
        ),
    ]


def _each(servers: Iterable[Server], action: Callable[[Server], object]) -> None:
    for server in servers:
        action(server)


def _promote(cluster: Cluster, old: Server, heir: Server, note: Callable[[str], None]) -> None:
    # A clean shutdown hands every commit to the replicas before the server is gone.
    old.stop()
    note(f"{old.name} is stopped")
    heir.promote()
    note(f"{heir.name} is promoted; the others follow it")
    cluster.repoint(*cluster.replicas)


def _caught_up(its: Router, names: Iterable[str], since: float) -> bool:
    wanted = its.snapshot.bound(since)
    return wanted is not None and all(
        (at := its.snapshot.replayed(name)) is not None and at >= wanted for name in names
    )
