"""Acknowledged writes that a promoted replica never received are told of, and no others."""

from typing import Any

import pytest

from router.model import Lsn
from tests.conftest import MakeCluster
from tests.failover.kit import ROLE, cut_off, doors, follow, prepare


def hear(opened: list[Any]) -> dict[str, list[tuple[str, Any]]]:
    """What each door's Router tells of lost writes from now on."""
    told: dict[str, list[tuple[str, Any]]] = {door.name: [] for door in opened}
    for door in opened:

        def hook(event: str, fields: Any, heard: list[Any] = told[door.name]) -> None:
            if event in ("writes_lost", "writes_maybe_lost"):
                heard.append((event, dict(fields)))

        door.router.telemetry.hooks.append(hook)
    return told


def test_a_write_that_the_promoted_replica_never_received_is_told(
    make_cluster: MakeCluster,
) -> None:
    """The Router of every door says once, when it follows the new primary, that its acknowledged
    write is lost, with the node, the positions and the timeline; any role is told."""
    cluster = make_cluster(1)
    prepare(cluster)
    primary, (new,) = cluster.primary, cluster.replicas
    with doors(cluster, ROLE) as opened:
        told = hear(opened)
        cut_off(new)
        for door in opened:
            door.router.refresh()  # it sees that the replica has all there is
            door.write()
            door.router.refresh()
        [(written,)] = primary.execute("SELECT pg_current_wal_flush_lsn()::text")
        primary.kill()
        new.promote()
        follow(opened, new)
        assert new.execute("SELECT count(*) FROM item") == [(0,)]
        [(began,)] = new.execute("SELECT pg_last_wal_replay_lsn()::text")
        for door in opened:
            door.router.refresh()
            [(event, fields)] = told[door.name]
            assert event == "writes_lost", door.name
            assert (fields["node"], fields["before"]) == ("replica1", "primary")
            # As a number: since 19 the server writes it with leading zeros.
            assert (fields["timeline"], Lsn.parse(fields["began"])) == (2, Lsn.parse(began))
            assert Lsn.parse(began) < Lsn.parse(fields["written"]) <= Lsn.parse(written)
            assert fields["bytes"] > 0
            assert door.router.stats()["events"]["writes_lost"] == 1


@pytest.mark.parametrize("mode", ["killed", "shut down"])
def test_a_failover_that_loses_nothing_tells_of_no_lost_write(
    make_cluster: MakeCluster, mode: str
) -> None:
    """Where the promoted replica had received every write of a process nothing is said of loss,
    also where its last one changed nothing."""
    cluster = make_cluster(1)
    prepare(cluster)
    primary, (new,) = cluster.primary, cluster.replicas
    with doors(cluster, ROLE) as opened:
        told = hear(opened)
        for number, door in enumerate(opened):
            door.write()
            if number % 2:
                door.run("UPDATE item SET name = 'other' WHERE false")
        cluster.wait_caught_up()
        if mode == "killed":
            primary.kill()
        else:
            primary.stop()
        new.promote()
        follow(opened, new)
        assert new.execute("SELECT count(*) FROM item") == [(len(opened),)]
        assert not any(told.values())
