"""The files of the pages on deployment, run by the servers they are for or read as those would."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from router import Config
from router.cli import wait
from router.testing.ports import free_port

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PAGE = "\n".join(
    (HOW_TO / f"{page}.md").read_text() for page in ("deploy", "deploy-on-kubernetes")
)
FILES = {
    name.rpartition("/")[2]: text
    for name, text in re.findall(
        r"^```\w+\n# (\S+\.\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
}
COMMANDS = re.findall(r"^\$ ((?:gunicorn|uvicorn) .+)$", PAGE, re.MULTILINE)
BIN = Path(sys.executable).parent
GRACE = 60.0  # a loaded machine starts a server slowly


@pytest.mark.parametrize("command", COMMANDS, ids=lambda text: text.split()[0])
def test_servers_run_the_files_of_the_page(
    command: str, tmp_path: Path, primary_url: str, replica_urls: list[str]
) -> None:
    """The command starts, the health check turns ready without the token, a page is served, and
    SIGTERM ends everything in order."""
    port = free_port()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    program, *arguments = shlex.split(command)
    driver = "asyncpg" if program == "uvicorn" else "psycopg"
    bind = ["--bind", f"127.0.0.1:{port}"] if program == "gunicorn" else ["--port", str(port)]
    env = {
        "PATH": os.environ["PATH"],
        "PG_ROUTER_URL": primary_url.replace("postgresql:", f"postgresql+{driver}:"),
        "PG_ROUTER_REPLICAS": ",".join(replica_urls),
        "PG_ROUTER_NAME": "shop",
        "PG_ROUTER_WORKERS": "2",
        "PG_ROUTER_MAX_CONNECTIONS": "12",
        "PIN_SECRET": "a secret of the tests",
    }
    if "--workers" in arguments:
        arguments[arguments.index("--workers") + 1] = "1"  # the machine has two cores
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", program, *bind, *arguments],
            cwd=tmp_path, env=env, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        assert _get(port, "/router/health", process) == (200, '{"status":"ready"}')
        assert _get(port, "/items", process) == (200, "0")
        assert _get(port, "/router/", process)[0] == 401
        process.send_signal(signal.SIGTERM)
        # A single uvicorn shuts down in order, and then gives itself the signal it was given.
        assert process.wait(GRACE) == (-signal.SIGTERM if program == "uvicorn" else 0)
        assert "Application shutdown complete" in log.read_text() or program == "gunicorn"
    except BaseException:
        print(log.read_text())
        raise
    finally:
        process.kill()
        process.wait()


def _get(port: int, path: str, process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    deadline = time.monotonic() + GRACE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode().strip().replace(" ", "")
        except urllib.error.HTTPError as refused:
            return refused.code, ""
        except OSError:
            time.sleep(0.02)
    pytest.fail("it does not serve")


def _seconds(name: str, text: str) -> float:
    (found,) = re.findall(rf"{name}\s*[=: ]\s*(\d+)", text)
    return float(found)


def test_systemd_unit_waits_longer_than_the_server_it_stops(tmp_path: Path) -> None:
    """The unit gives gunicorn its graceful time and `pg-router wait` its own, and systemd-analyze,
    where it is installed, accepts it."""
    unit = FILES["shop.service"]
    graceful = _seconds("graceful_timeout", FILES["gunicorn.conf.py"])
    assert _seconds("TimeoutStopSec", unit) > graceful
    assert _seconds("TimeoutStartSec", unit) > _seconds("--timeout", unit)
    assert _accepted(re.findall(r"^ExecStartPre=(.+)$", unit, re.MULTILINE)[0].split()[1:])
    # A tool of the host, not a server the tests need: nothing to install for its sake.
    if analyze := shutil.which("systemd-analyze"):
        here = tmp_path / "shop.service"
        here.write_text(unit.replace("/srv/shop/venv/bin", str(BIN)))
        done = subprocess.run(
            [analyze, "verify", "--man=no", here], capture_output=True, text=True, check=False
        )
        told = [line for line in done.stderr.splitlines() if "shop" in line]
        assert (done.returncode, told) == (0, [])


def _accepted(arguments: list[str]) -> bool:
    """Whether `pg-router` takes these arguments, the first of which is `wait`."""
    assert arguments[0] == "wait"
    with contextlib.suppress(SystemExit):
        wait.wait.make_context("wait", arguments[1:])
        return True
    return False


def _manifests() -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in YAML(typ="safe").load_all(FILES["shop.yaml"])}


def test_manifests_fit_together() -> None:
    """Selectors choose the pods, names lead to what is there, ports are declared, and the end of
    a pod takes no longer than it is given."""
    found = _manifests()
    assert set(found) == {
        "Deployment", "ConfigMap", "Secret", "Service", "PodDisruptionBudget",
    }  # fmt: skip
    deployment = found["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert labels == deployment["selector"]["matchLabels"] == found["Service"]["spec"]["selector"]
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] < deployment["replicas"]
    (container,), (waits,) = pod["containers"], pod["initContainers"]
    for one in (container, waits):
        (config, secret) = one["envFrom"]
        assert config["configMapRef"]["name"] == found["ConfigMap"]["metadata"]["name"]
        assert secret["secretRef"]["name"] == found["Secret"]["metadata"]["name"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in found["Service"]["spec"]["ports"]} <= ports
    assert container["readinessProbe"]["httpGet"]["port"] in ports
    assert container["livenessProbe"]["tcpSocket"]["port"] in ports
    # The health check's first call waits for the first probes: `start_timeout` at most.
    assert (
        container["readinessProbe"]["timeoutSeconds"]
        > Config.from_url("postgresql://x").start_timeout
    )
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    graceful = _seconds("graceful_timeout", FILES["gunicorn.conf.py"])
    assert pod["terminationGracePeriodSeconds"] > pause + graceful
    assert pod["securityContext"]["runAsNonRoot"]
    assert waits["command"][0] == "pg-router"
    assert _accepted(waits["command"][1:])


def test_manifests_configure_the_router() -> None:
    """ConfigMap and Secret are a Config, sized for the pods of a rolling update."""
    found = _manifests()
    environ = {**found["ConfigMap"]["data"], **found["Secret"]["stringData"]}
    config = Config.from_env(environ=environ)
    assert len(config.replicas) == 2
    deployment = found["Deployment"]["spec"]
    pods = deployment["replicas"] + deployment["strategy"]["rollingUpdate"]["maxSurge"]
    assert config.workers == pods * int(environ["WEB_CONCURRENCY"])
