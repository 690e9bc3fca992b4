"""Asks an application's status page about the nodes, for ``pg-router status --app``."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.cli.ask import TIMEOUT
from router.messages import one_line

MOST = 10_000_000
"""Bytes that are read of an answer."""

_CURES = {
    401: "give its token by --token or PG_ROUTER_STATUS_TOKEN",
    403: "its guard lets nobody in from here, or it wants a token",
    404: "give the URL the page is mounted at",
}


@dataclass(frozen=True, slots=True)
class Application:
    """The answer of one process of an application.

    Attributes:
        process: its id, None where it did not answer.
        nodes: each node as docs/reference/status-page.md describes it, by name.
        problem: why it could not be asked, in one line.
    """

    process: int | None = None
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    problem: str = ""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the token is for the server that was named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


# Whatever proxy the environment names is not for an application's own pages.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay)


def ask_application(url: str, token: str | None, cluster: str) -> Application:
    """Ask the status page at `url` for its JSON. What goes wrong is in the answer.

    Of several worker processes one answers, and tells of itself alone.

    Args:
        url: where the page is mounted, ``http://`` or ``https://``.
        token: the page's, if it has one.
        cluster: id of the cluster that is wanted; one that stands there alone is taken whatever it
            is called.
    """
    headers = {"Accept": "application/json"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{url.rstrip('/')}/status", headers=headers)  # noqa: S310
    try:
        with _OPENER.open(request, timeout=TIMEOUT) as response:
            told = json.loads(response.read(MOST))
        found = {str(c["name"]): c for c in told["clusters"]}
        process = int(told["process"])
        nodes = {
            name: {str(n["name"]): {**n} for n in one["nodes"]} for name, one in found.items()
        }
    except urllib.error.HTTPError as error:
        cure = _CURES.get(error.code, "is that a status page?")
        return Application(problem=f"it answers {error.code}: {cure}")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return Application(problem=one_line(reason) or type(error).__name__)
    except (ValueError, LookupError, TypeError):
        return Application(problem="its answer is no status page's: give the URL it is mounted at")
    if cluster in nodes:
        return Application(process, nodes[cluster])
    if len(nodes) == 1:
        return Application(process, next(iter(nodes.values())))
    names = ", ".join(sorted(nodes)) or "none"
    return Application(
        process,
        problem=f"of the clusters it shows ({names}) none is {cluster!r}: give the application's "
        "name as PG_ROUTER_NAME",
    )
