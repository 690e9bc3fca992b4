"""PostgreSQL's URLs and addresses taken apart: hosts, ports, credentials, parameters."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from router.errors import ConfigError
from router.messages import masked

_SEVERAL = ("host", "port", "replica", "replicas", "router_replica", "router_replicas")
"""Parameters that a URL's query may hold more than once."""


def url_parts(url: str, key: str) -> dict[str, Any]:
    """What a PostgreSQL URL says, by the names of `Server`'s attributes, and nothing else.

    Several hosts, as libpq writes them, are one text with commas in ``host`` and ``port``.

    Args:
        url: the URL.
        key: the option it was given under, for error messages.

    Raises:
        ConfigError: it is no PostgreSQL URL.
    """
    first, *others = [_one_url(each, key) for each in one_host_each(url.strip())]
    if others:
        each = [first, *others]
        first["host"] = ",".join(parts.get("host", "") for parts in each)
        first["port"] = ",".join(str(parts.get("port", "")) for parts in each)
    return first


def url_text(url: object, key: str) -> str:
    """`url`, given for the option `key`, as text. SQLAlchemy's URLs show their password only on
    request.

    Raises:
        ConfigError: it is no URL.
    """
    render = getattr(url, "render_as_string", None)
    found = url if render is None else render(hide_password=False)
    if not isinstance(found, str):
        raise ConfigError(f"{key}: expected a URL as text, not {type(url).__name__}")
    return found


def _one_url(url: str, key: str) -> dict[str, Any]:
    scheme, separator, _ = url.partition("://")
    dialect, _, driver = scheme.partition("+")
    if not separator or dialect not in ("postgresql", "postgres"):
        # What is no URL may be anything, a password for one.
        shown = f"{masked(url)!r}" if separator else "the text"
        raise ConfigError(
            f"{key}: {shown} is not a PostgreSQL URL: expected postgresql://host:port/dbname"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Its message may quote a part of the password.
        raise ConfigError(
            f"{key}: {masked(url)!r} is malformed: the port must be a number of 1 to 65535, and "
            "special characters in user and password percent-encoded ('@' as %40, '/' as %2F)"
        ) from None
    # Of a line break or tab urlsplit says nothing, and leaves it out.
    if parts.fragment or "@" in parts.path or re.search(r"[\t\r\n]", url):
        raise ConfigError(
            f"{key}: {masked(url)!r} is malformed: percent-encode special characters in user "
            "and password ('#' as %23, '/' as %2F)"
        )
    params = _query(parts.query, key)
    written = {
        "host": _host(parts.netloc),
        "user": parts.username,
        "password": parts.password,
        "dbname": parts.path.lstrip("/"),
    }
    found: dict[str, Any] = {}
    for name, text in written.items():
        other = params.pop(name, "") if name == "host" or not text else ""
        found[name] = unquote(text or "") or other
    found["port"] = params.pop("port", "") if port is None else str(port)
    found |= {"driver": driver, "params": params}
    return {name: value for name, value in found.items() if value}


def _query(query: str, key: str) -> dict[str, str]:
    """The parameters of a URL's query; what may be said several times is one text with commas.

    Raises:
        ConfigError: something else is said several times.
    """
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        found.setdefault(name, []).append(value)
    for name, values in found.items():
        if len(values) > 1 and name not in _SEVERAL:
            raise ConfigError(f"{key}: {name}: given {len(values)} times in the URL: give it once")
    return {name: ",".join(values) for name, values in found.items()}


def one_host_each(url: str) -> list[str]:
    """`url`, or one URL for each of its hosts where it names several, as libpq allows."""
    scheme, separator, rest = url.partition("://")
    end = re.search(r"[/?#]|$", rest)
    cut = end.start() if end is not None else len(rest)
    user, at, hosts = rest[:cut].rpartition("@")
    if not separator or "," not in hosts:
        return [url]
    return [f"{scheme}://{user}{at}{host}{rest[cut:]}" for host in hosts.split(",")]


_HOST = r"(?:\[[^\]\s]*\]|[^\s,/?#:\[\]@]*)(?::\d+)?"
_ENTRY = re.compile(
    rf"\s*[a-z][a-z0-9+]*://(?:[^/?#\s]*@)?(?:{_HOST}(?:,{_HOST})+(?=[/?]))?[^,]*|[^,]+",
    re.IGNORECASE,
)


def entries(text: str) -> list[str]:
    """The servers of a `text` with commas. Commas within a URL do not part servers."""
    return [entry for found in _ENTRY.findall(text) if (entry := found.strip())]


def each_host(given: object, key: str) -> list[object]:
    """`given`, an entry of ``replicas`` found at `key`, once for each of its hosts.

    Raises:
        ConfigError: its URL is none.
    """
    if isinstance(given, Mapping):
        if given.get("url") is None:
            return [given]
        return [{**given, "url": each} for each in one_host_each(url_text(given["url"], key))]
    if hasattr(given, "render_as_string"):
        given = url_text(given, key)
    if not isinstance(given, str):
        return [given]
    return list(one_host_each(given) if "://" in given else map(str.strip, given.split(",")))


def _host(netloc: str) -> str:
    """The host as it is written: `urlsplit` lowers it, and a socket directory has its case."""
    address = netloc.rpartition("@")[2]
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0]


def host_port(text: str, key: str) -> dict[str, object]:
    """``host`` and, where given, ``port`` of a `text` like ``db1``, ``db1:5432`` or
    ``[::1]:5432``, found at `key`.

    Raises:
        ConfigError: it is something else.
    """
    if re.search(r"[@=\s{}\"']", text):  # the text may hold a password
        raise ConfigError(
            f"{key}: expected 'host' or 'host:port'; what needs a user or parameters is written "
            "postgresql://user:password@host:port/dbname"
        )
    if text.startswith("["):  # [::1]:5432
        host, _, rest = text[1:].partition("]")
        port = rest.lstrip(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    if not host:
        raise ConfigError(f"{key}: {text!r} names no host: write 'host' or 'host:port'")
    return {"host": host, **({"port": port_of(port, key)} if port else {})}


def port_of(value: object, key: str) -> int:
    """`value`, found at `key`, as a TCP port.

    Raises:
        ConfigError: it is none.
    """
    text = str(value)
    port = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    if not 0 < port < 65536:
        # What is no number may be anything, a password for one.
        shown = repr(value) if re.fullmatch(r"-?[0-9]+", text) else "the text"
        raise ConfigError(f"{key}: {shown} is no port: give 1 to 65535")
    return port
