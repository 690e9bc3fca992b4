"""A Patroni cluster with etcd on loopback ports, ended with the test."""

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.testing import versions
from router.testing.ports import HOST, free_port
from tests.failover.managed import SERVER, Server, Stage, set_up, until
from tests.servers import require

TTL = 20
"""Seconds after which a leader that is silent has lost its lock: the least that Patroni takes."""

_RULES = {
    "ttl": TTL,
    "loop_wait": 1,
    "retry_timeout": 3,
    "postgresql": {"use_pg_rewind": True, "parameters": SERVER},
}


@dataclass
class Member(Server):
    """A server that a Patroni of its own runs."""

    api: str = ""


class Patroni:
    """`count` members, led by one of them."""

    def __init__(self, stage: Stage, count: int) -> None:
        self._stage = stage
        self._etcd = self._start_etcd()
        self.members = [self._add(f"db{number + 1}") for number in range(count)]

    @property
    def leader(self) -> Member:
        """Who leads, as Patroni says; somebody must."""
        [leader] = [m for m in self.members if m.name == self._leader()]
        return leader

    @property
    def apis(self) -> list[str]:
        return [member.api for member in self.members]

    def others(self, member: Member) -> list[Member]:
        return [each for each in self.members if each is not member]

    def start(self, member: Member) -> None:
        """Start the Patroni of `member`, which starts its server."""
        config = self._stage.home / f"{member.name}.json"
        member.manager = self._stage.start(
            member.name, sys.executable, "-m", "patroni", config, PYTHONUNBUFFERED="1"
        )

    def switchover(self, candidate: Member) -> str:
        """Have Patroni hand the lead to `candidate`; its answer, which comes when that is done."""
        wanted = {"leader": self.leader.name, "candidate": candidate.name}
        request = urllib.request.Request(
            f"{self.leader.api}/switchover", json.dumps(wanted).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())

    def settled(self) -> bool:
        """Whether one leads and the others stream from it."""
        name = self._leader()
        return name is not None and all(
            m.leads if m.name == name else m.streams for m in self.members
        )

    def wait(self) -> None:
        """Wait until it is settled."""
        until(self.settled, "one leads, the others stream")

    def _leader(self) -> str | None:
        for member in self.members:
            try:
                with urllib.request.urlopen(f"{member.api}/cluster", timeout=1) as answer:
                    said = json.loads(answer.read())["members"]
            except OSError:
                continue
            found = [m["name"] for m in said if m["role"] == "leader"]
            if found:
                return str(found[0])
        return None

    def _start_etcd(self) -> str:
        client, peer = (f"http://{HOST}:{free_port()}" for _ in range(2))
        command: list[object] = [require("etcd"), "--name=only"]
        command += [f"--data-dir={self._stage.directory('etcd')}"]
        command += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        command += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        self._stage.start("etcd", *command, f"--initial-cluster=only={peer}")
        return client.removeprefix("http://")

    def _add(self, name: str) -> Member:
        home = self._stage.home
        port, rest = free_port(), f"{HOST}:{free_port()}"
        member = Member(name, port, home / name, home / f"{name}.log", api=f"http://{rest}")
        config = self._config(member, rest)
        path = home / f"{name}.json"  # which is YAML, too
        path.write_text(json.dumps(config))
        self._stage.who.own(path)
        self.start(member)
        return member

    def _config(self, member: Member, rest: str) -> dict[str, Any]:
        address = f"{HOST}:{member.port}"
        return {
            "scope": "shop",
            "name": member.name,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": self._etcd},
            "bootstrap": {
                "dcs": _RULES,
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "no-sync"],
            },
            "postgresql": {
                "listen": address,
                "connect_address": address,
                "data_dir": str(member.data),
                "bin_dir": str(versions.wheel()),
                "pgpass": str(Path(self._stage.home) / f"{member.name}.pgpass"),
                "authentication": {
                    "superuser": {"username": "postgres"},
                    "replication": {"username": "replicator"},
                },
                "pg_hba": [
                    f"host all all {HOST}/32 trust",
                    f"host replication replicator {HOST}/32 trust",
                ],
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
            },
        }


@contextmanager
def patroni(count: int = 3) -> Iterator[Patroni]:
    """`count` members of which one leads and the others stream from it."""
    with set_up() as stage:
        made = Patroni(stage, count)
        made.wait()
        yield made
