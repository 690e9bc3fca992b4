"""docker/prometheus and docker/grafana: they find each other, and show what the router tells."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ruamel.yaml import YAML

from tests.docker.test_compose import DOCKER, ROOT, SERVICES, environment, mounts

DASHBOARD = DOCKER / "grafana" / "dashboards" / "pg-router.json"
PAGE = ROOT / "docs" / "reference" / "metrics.md"
METRIC = re.compile(r"\bpg_router_\w+")
# What a histogram or a summary is asked for, beside its name.
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())


def expressions(panels: list[dict[str, Any]]) -> Iterator[str]:
    for panel in panels:
        yield from (target["expr"] for target in panel.get("targets", ()))
        yield from expressions(panel.get("panels", []))


def test_prometheus_scrapes_a_service_that_is_there() -> None:
    """Each target is a service of compose.yaml, on a port it opens."""
    (job,) = load(DOCKER / "prometheus" / "prometheus.yml")["scrape_configs"]
    for target in job["static_configs"][0]["targets"]:
        name, port = target.split(":")
        assert any(published.endswith(f":{port}") for published in SERVICES[name]["ports"])


def test_grafana_is_provisioned_with_what_is_mounted() -> None:
    """The data source is the service prometheus, the dashboards' directory and the first page are
    where the files are mounted, and every panel asks that data source."""
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = load(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    address = urlsplit(source["url"])
    assert f"127.0.0.1:{address.port}:{address.port}" in SERVICES[str(address.hostname)]["ports"]
    (provider,) = load(provisioning / "dashboards" / "pg-router.yaml")["providers"]
    seen = {target: path for path, target in mounts(SERVICES["grafana"])}
    assert seen[provider["options"]["path"]].resolve() == DASHBOARD.parent.resolve()
    home = environment("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{DASHBOARD.name}"
    dashboard = json.loads(DASHBOARD.read_text())
    asked = {p["datasource"]["uid"] for p in dashboard["panels"] if p["type"] != "row"}
    assert asked == {source["uid"]}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_dashboard_asks_for_metrics_that_exist() -> None:
    """Each metric a panel asks for is one of docs/reference/metrics.md."""
    documented = set(METRIC.findall(PAGE.read_text()))
    dashboard = json.loads(DASHBOARD.read_text())
    asked = {name for text in expressions(dashboard["panels"]) for name in METRIC.findall(text)}
    assert len(asked) > 5
    missing = {name for name in asked if not {name, SUFFIX.sub("", name)} & documented}
    assert missing == set()
