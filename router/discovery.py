"""Who belongs to the cluster, asked of those who know: callables for the option ``discovery``.

A callable returns every server, as ``replicas`` takes them. Roles are not believed: the probes
find them out.
"""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from router.errors import ConfigError, RouterError
from router.messages import masked

LARGEST = 1 << 20
"""Bytes of an answer that are read."""


def patroni(
    *urls: str, timeout: float = 2.0, context: ssl.SSLContext | None = None
) -> Callable[[], list[dict[str, object]]]:
    """Ask Patroni's REST API for the members of its cluster.

    The first address that answers is enough; the members' own addresses are tried as well from
    then on. A member with the tag ``noloadbalance`` gets the weight 0.

    Args:
        urls: of one or several members' REST API, such as ``http://db1:8008``.
        timeout: seconds to wait for each.
        context: how to check certificates of ``https`` addresses.

    Raises:
        ConfigError: no address, or one that is neither http nor https.

    Source: https://patroni.readthedocs.io/en/latest/rest_api.html#cluster-status-endpoints
    """
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"patroni: {masked(url)!r} is no http or https address")
    if not urls:
        raise ConfigError("patroni: no address: give that of a member, such as http://db1:8008")
    known = list(urls)
    # Straight there: what the environment names as a proxy is for the world outside.
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))

    def ask() -> list[dict[str, object]]:
        failure = ""
        for url in list(known):
            try:
                with opener.open(f"{url.rstrip('/')}/cluster", timeout=timeout) as answer:
                    found = json.loads(answer.read(LARGEST))
                servers = list(_members(found))
            except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
                failure = failure or f"{masked(url)}: {type(error).__name__}: {error}"
                continue
            if servers:
                known[:] = dict.fromkeys([url, *urls, *_addresses(found)])
                return servers
            failure = failure or f"{masked(url)}: it names no member"
        raise RouterError(f"patroni: no address answered ({failure}): look at Patroni")

    return ask


def _members(found: Any) -> Iterator[dict[str, object]]:
    for member in found["members"]:
        # One that is being made has no address yet.
        if member.get("host") and member.get("port"):
            spared = bool((member.get("tags") or {}).get("noloadbalance"))
            yield {
                "name": str(member["name"]),
                "host": str(member["host"]),
                "port": int(member["port"]),
                "weight": 0.0 if spared else 1.0,
            }


def _addresses(found: Mapping[str, Any]) -> Iterator[str]:
    for member in found["members"]:
        url = str(member.get("api_url") or "")
        if url.startswith(("http://", "https://")):
            yield url.removesuffix("/patroni")
