"""docker/compose.yaml and docker/Dockerfile, as far as a machine without an engine can judge."""

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from router import Config
from tests.docker.stage import SCRIPTS

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.yaml"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
# ${NAME:-default}
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
SERVICES: dict[str, dict[str, Any]] = YAML(typ="safe").load(
    VARIABLE.sub(lambda found: found[2], COMPOSE.read_text())
)["services"]
ONCE = "service_completed_successfully"


def environment(service: str) -> dict[str, str]:
    return dict(SERVICES[service].get("environment", {}))


def mounts(service: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Files and directories of the source tree, and where a service sees them."""
    for volume in service.get("volumes", ()):
        source, target, *_ = volume.split(":")
        if source.startswith("."):
            yield DOCKER / source, target


def test_compose_file_keeps_to_the_specification() -> None:
    """The schema of the Compose specification finds nothing to say and each ${…} has a default."""
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(COMPOSE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "${" not in VARIABLE.sub("", COMPOSE.read_text())


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_pinned_private_and_waits_for_what_it_needs(name: str) -> None:
    """An image has a version, ports are this machine's alone, what is mounted exists, and what
    depends on a service waits until it is healthy, or has ended well."""
    service = SERVICES[name]
    tag = service["image"].rpartition(":")[2]
    assert tag not in ("latest", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert [str(source) for source, _ in mounts(service) if not source.exists()] == []
    for other, how in service.get("depends_on", {}).items():
        needed = "healthcheck" if how["condition"] == "service_healthy" else "command"
        assert how["condition"] in ("service_healthy", ONCE)
        assert needed in SERVICES[other], other
    ends = any(
        s.get("depends_on", {}).get(name, {}).get("condition") == ONCE for s in SERVICES.values()
    )
    assert ends or "healthcheck" in service


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_given_what_they_ask_for(script: Path) -> None:
    """Each service that runs a script sets the variables without which it ends, and no other."""
    text = script.read_text()
    needed = set(re.findall(r"\$\{(\w+):\?\}", text))
    known = set(re.findall(r"\b[A-Z][A-Z_]+\b", text))
    users = {
        name: service
        for name, service in SERVICES.items()
        if any(source.name == script.name for source, _ in mounts(service))
        or script.name in str(service.get("build", {})) + name + ".sh"
    }
    assert users
    for name, service in users.items():
        given = set(environment(name)) | set(re.findall(r"^ENV (\w+)=", DOCKERFILE, re.MULTILINE))
        assert needed <= given, name
        assert set(environment(name)) <= known, name
        seen = {target for source, target in mounts(service) if source.name == script.name}
        assert not seen or seen <= set(service["entrypoint"])


def test_commands_in_the_containers_find_the_cluster() -> None:
    """What the services set is a Config with both replicas behind a PgBouncer by transaction."""
    for name in ("setup", "app"):
        config = Config.from_env(environ=environment(name))
        assert [replica.dbname for replica in config.replicas] == [
            "blog_replica1",
            "blog_replica2",
        ]
        assert {(s.host, s.port) for s in (config.primary, *config.replicas)} == {
            ("pgbouncer", 6432)
        }
        assert config.pooling(config.primary) == "transaction"


def test_blog_reads_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blog as Compose runs it has the router's nodes, and keeps pins by user in Redis."""
    for key, value in environment("app").items():
        monkeypatch.setenv(key, value)
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "flask"))
    monkeypatch.syspath_prepend(str(DOCKER / "app"))
    composed = importlib.import_module("composed")
    app = composed.app
    try:
        client = app.test_client()
        with client.session_transaction() as session:
            session["user"] = 42
        cookie = client.get_cookie("session")
        assert composed.identify({"HTTP_COOKIE": f"session={cookie.value}"}) == "42"
        assert composed.identify({"HTTP_COOKIE": "session=forged"}) is None
        assert composed.identify({}) is None
        with app.app_context():
            state = app.extensions["router"]
            (routed,) = state.owner.routers.values()
            assert [node.name for node in routed.servers] == ["primary", "replica1", "replica2"]
            assert routed.config == Config.from_env(
                environ=environment("app"), pin_lsn="commit", echo=False
            )
            assert "RedisPinStore" in type(state.carrier.store).__name__
            for engine in app.extensions["sqlalchemy"].engines.values():
                engine.dispose()
    finally:
        for name in [n for n in sys.modules if n.partition(".")[0] in ("blog", "composed")]:
            del sys.modules[name]


def test_dockerfile_copies_what_exists_and_installs_known_extras() -> None:
    """Every target that Compose builds is there, what is copied exists and is not ignored, the
    extras are ours, no image is without a version and nothing runs as root."""
    stages = re.findall(r"^FROM (\S+) AS (\w+)", DOCKERFILE, re.MULTILINE)
    names = {name for _, name in stages}
    assert {s["build"]["target"] for s in SERVICES.values() if "build" in s} < names
    assert all(image in names or re.search(r":[\w.]+-", image) for image, _ in stages)
    kept = re.findall(r"^!(\S+)", (DOCKER / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    for line in re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), source
            assert any(source == one or source.startswith(one + "/") for one in kept), source
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for given in re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE):
        assert set(given.split(",")) <= set(extras)
    for part in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]:
        assert "AS base" in part or re.search(r"^USER (?!root)\w", part, re.MULTILINE)
