"""Where a Config is read from, and how what several places say is layered.

The first layer that says something wins; libpq's own variables fill what none says.
"""

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Self

from router.config.options import OPTIONS, own_query
from router.config.server import Server, split_hosts, with_own
from router.config.sources import (
    ADDRESS,
    Settings,
    argument,
    django,
    environment,
    found_at,
    horsies,
    libpq,
    makara,
    mediafusion,
    pgbouncer,
    toml,
)
from router.config.urls import entries, url_parts, url_text
from router.errors import ConfigError
from router.messages import did_you_mean

KEYS: tuple[str, ...] = ("url", *ADDRESS, "primary", "replicas")
"""What a source may say beside the options."""

SESSION_ATTRS = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
"""What libpq's ``target_session_attrs`` may be; the router finds roles out itself.

Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS
"""


class FromSources:
    """The constructors of `router.config.Config`, one for each way people write options down."""

    __slots__ = ()

    @classmethod
    @abstractmethod
    def build(cls, primary: Server, replicas: object = (), **options: Any) -> Self:
        """See `router.config.config.Config.build`."""

    @classmethod
    def from_url(cls, url: str, replicas: object = (), **options: object) -> Self:
        """From the primary's URL, whose query may hold options too.

        Args:
            url: such as ``postgresql://user:password@host/dbname?pin_max=30``; several hosts are
                several nodes.
            replicas: URLs, ``host:port`` texts, or mappings of what differs from the primary.
            **options: as the attributes above; they win over the URL.

        Raises:
            ConfigError: an option is unknown or malformed; names it and the cure.
        """
        given = {"url": url, **({"replicas": replicas} if replicas else {})}
        own = Settings.of(options, argument)
        return cls._layered([own, Settings.of(given, str)], "url", os.environ)

    @classmethod
    def from_mapping(
        cls, mapping: Mapping[str, object], prefix: str = "", **options: object
    ) -> Self:
        """From a mapping, such as Flask's ``app.config`` or a section of your own file.

        Args:
            mapping: ``url`` or ``host``, ``port``, ``user``, ``password``, ``dbname`` and
                ``params`` for the primary, ``primary`` for its ``name``, ``zone`` and so on,
                ``replicas``, and options.
            prefix: only keys that begin with it are taken, without it and in lower case.
            **options: as the attributes above; they win over the mapping.

        Raises:
            ConfigError: a key is unknown or malformed; names it and the cure.
        """
        taken = {
            (key.removeprefix(prefix).lower() if prefix else key): value
            for key, value in mapping.items()
            if not prefix or str(key).startswith(prefix)
        }
        found = Settings.of(taken, lambda name: prefix + name.upper() if prefix else name)
        layers = [Settings.of(options, argument), found]
        return cls._layered(layers, f"{prefix}URL" if prefix else "url", os.environ)

    @classmethod
    def from_env(
        cls,
        prefix: str = "PG_ROUTER_",
        *,
        environ: Mapping[str, str] | None = None,
        **options: object,
    ) -> Self:
        """From environment variables: `prefix` and the option's name in capitals.

        Args:
            prefix: of the variables.
            environ: the environment; by default the process's.
            **options: as the attributes above; they win over the environment.

        Raises:
            ConfigError: a variable is unknown or malformed; names it and the cure.
        """
        environ = os.environ if environ is None else environ
        layers = [Settings.of(options, argument), environment.read(environ, prefix)]
        return cls._layered(layers, f"{prefix}URL", environ)

    @classmethod
    def from_toml(
        cls,
        path: str | Path,
        section: str = "pg-router",
        *,
        prefix: str = "",
        environ: Mapping[str, str] | None = None,
        **options: object,
    ) -> Self:
        """From a table of a TOML file.

        Args:
            path: the file.
            section: the table, with dots for one inside another: ``tool.pg-router``.
            prefix: environment variables that begin with it win over the file; by default none.
            environ: the environment; by default the process's.
            **options: as the attributes above; they win over both.

        Raises:
            ConfigError: the file or table is missing, or a key is unknown or malformed.
        """
        environ = os.environ if environ is None else environ
        layers = [Settings.of(options, argument)]
        if prefix:
            layers.append(environment.read(environ, prefix))
        layers.append(toml.read(Path(path), section))
        return cls._layered(layers, f"{path} [{section}] url", environ)

    @classmethod
    def from_libpq(
        cls,
        service: str = "",
        replicas: object = (),
        *,
        environ: Mapping[str, str] | None = None,
        **options: object,
    ) -> Self:
        """From libpq's environment variables (``PGHOST`` …) and service files.

        Args:
            service: a section of ``pg_service.conf``; by default what ``PGSERVICE`` says.
            replicas: as everywhere, and ``service=NAME`` for another section.
            environ: the environment; by default the process's.
            **options: as the attributes above.

        Raises:
            ConfigError: no host is named, the service is not found, or an option is malformed.
        """
        environ = os.environ if environ is None else environ
        given = {**options, **({"replicas": replicas} if replicas else {})}
        return cls._layered([Settings.of(given, argument)], "PGHOST", environ, service)

    @classmethod
    def from_django(
        cls, database: Mapping[str, object], alias: str = "default", **options: object
    ) -> Self:
        """From one database of Django's ``DATABASES``, with ``REPLICAS`` and ``ROUTER``.

        Args:
            database: its settings.
            alias: its key, for error messages.
            **options: as the attributes above; they win over the settings.

        Raises:
            ConfigError: a key is unknown or malformed, or there is no ``HOST``.
        """
        layers = [Settings.of(options, argument), django.read(database, alias)]
        return cls._layered(layers, f"DATABASES[{alias!r}]['HOST']", os.environ)

    @classmethod
    def from_makara(cls, block: Mapping[str, object], **options: object) -> Self:
        """From one environment's block of a ``database.yml`` that uses Makara.

        Args:
            block: as a YAML library gives it, such as ``loaded["production"]``.
            **options: as the attributes above; they win over the block.

        Raises:
            ConfigError: a key is unknown or malformed, or there is no single primary.
        """
        layers = [Settings.of(options, argument), makara.read(block)]
        return cls._layered(layers, "makara.connections", os.environ)

    @classmethod
    def from_mediafusion(cls, environ: Mapping[str, str] | None = None, **options: object) -> Self:
        """From MediaFusion's variables: ``POSTGRES_URI``, ``POSTGRES_READ_URI`` and so on.

        Args:
            environ: the environment; by default the process's.
            **options: as the attributes above; they win over the environment.

        Raises:
            ConfigError: ``POSTGRES_URI`` is not set, or a variable is misspelt or malformed.
        """
        environ = os.environ if environ is None else environ
        layers = [Settings.of(options, argument), mediafusion.read(environ)]
        return cls._layered(layers, "POSTGRES_URI", environ)

    @classmethod
    def from_horsies(
        cls,
        fields: Mapping[str, object],
        part: horsies.Part = "broker",
        replicas: object = (),
        **options: object,
    ) -> Self:
        """From the fields of Horsies' ``PostgresConfig``, with its defaults.

        Args:
            fields: by name; ``database_url`` is required.
            part: whose pools: "broker", a "worker"'s coordinator, or a "child" of it.
            replicas: Horsies knows none; those its reads may use.
            **options: as the attributes above; they win over the fields.

        Raises:
            ConfigError: a field is unknown, malformed, or missing where Horsies requires it.
        """
        given = {**options, **({"replicas": replicas} if replicas else {})}
        layers = [Settings.of(given, argument), horsies.read(fields, part)]
        return cls._layered(layers, "database_url", os.environ)

    @classmethod
    def from_pgbouncer_ini(
        cls, path: str | Path, database: str, replicas: Sequence[str] = (), **options: object
    ) -> Self:
        """From a ``pgbouncer.ini``: through that PgBouncer, as it pools each database.

        Args:
            path: the file.
            database: the name of its entry that leads to the primary.
            replicas: those of the entries that lead to replicas.
            **options: as the attributes above, and ``user`` and ``password``.

        Raises:
            ConfigError: the file cannot be read, an entry is missing, or an option is malformed.
        """
        layers = [Settings.of(options, argument), pgbouncer.read(Path(path), database, replicas)]
        return cls._layered(layers, f"{path} listen_addr", os.environ)

    @classmethod
    def _layered(
        cls, layers: Iterable[Settings], wanted: str, environ: Mapping[str, str], service: str = ""
    ) -> Self:
        return cls.build(**_together(layers, wanted, environ, service))


def _together(
    layers: Iterable[Settings], wanted: str, environ: Mapping[str, str], service: str
) -> dict[str, Any]:
    """What `layers` and libpq's variables say together, as arguments of `Config.build`."""
    found = reduce(lambda above, below: above.over(below), map(_expanded, layers))
    params = found.values.get("params", {})
    if not isinstance(params, Mapping):
        raise ConfigError(f"{found_at(found.sources, 'params')}params: expected a mapping")
    below = libpq.read(environ, str(params.get("service", "")) or service)
    found = found.beside(below)
    sources = dict(found.sources)
    values = {key: value for key, value in found.values.items() if key != "params"}
    given = {key: values.pop(key) for key in ADDRESS if key in values}
    refuse_unknown(values.keys() - {"primary", "replicas"}, sources)
    if not given.get("host"):
        raise ConfigError(
            f"{wanted}: no host: give the primary's URL, or its host (PGHOST, or a service)"
        )
    under: Any = below.values.get("params", {})
    primary, *beside = _servers(given, {**under, **params}, sources)
    values["primary"] = with_own(primary, values.get("primary", {}), "primary")
    replicas = values.pop("replicas", ())
    if isinstance(replicas, str):
        replicas = entries(replicas)
    if isinstance(replicas, list | tuple):
        replicas = [
            libpq.service_url(each.removeprefix("service="), environ)
            if isinstance(each, str) and each.startswith("service=")
            else each
            for each in replicas
            if each
        ]
    if beside or replicas or "discovery" in values:
        apply_session_attrs(primary.params, values)
    return {**values, "replicas": replicas, "beside": beside, "sources": sources}


def _servers(
    given: Mapping[str, object], params: Mapping[str, Any], sources: Mapping[str, str]
) -> list[Server]:
    """The servers of an address, one for each of its hosts."""
    address = {key: str(value) for key, value in given.items() if value is not None}
    host, port = address.pop("host"), address.pop("port", "")
    taken = {str(key): str(value) for key, value in params.items() if key != "service"}
    first = Server(host, params=taken, **address)  # type: ignore[arg-type]
    places = [sources.get(name, name) for name in ("host", "port")]
    return split_hosts(first, host, port, *places)


def _expanded(settings: Settings) -> Settings:
    """`settings` with what its URL says as settings of their own; those beside the URL win."""
    values = dict(settings.values)
    url = values.pop("url", None)
    if "replica" in values:
        values.setdefault("replicas", values.pop("replica"))
    kept = Settings(values, {name: settings.sources.get(name, name) for name in values})
    if url is None:
        return kept
    source = settings.sources.get("url", "url")
    parts = url_parts(url_text(url, source), source)
    try:
        options, params = own_query(parts.pop("params", {}))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    said = {**options, **parts, **({"params": params} if params else {})}
    return kept.beside(Settings.of(said, lambda _: source))


def refuse_unknown(options: Iterable[str], sources: Mapping[str, str]) -> None:
    """Raise ConfigError where a key of `options` is none; `sources` says where each was found."""
    for key in sorted(set(options) - set(OPTIONS), key=str):
        near = did_you_mean(str(key), (*KEYS, *OPTIONS))
        raise ConfigError(f"{found_at(sources, key)}unknown option {key!r}{near}")


def apply_session_attrs(params: Mapping[str, object], options: dict[str, Any]) -> None:
    """Write what ``target_session_attrs`` in `params` asks of reads into `options`. The router
    finds out roles itself.

    Raises:
        ConfigError: it is none of libpq's values.
    """
    wanted = params.get("target_session_attrs", "any")
    if wanted not in SESSION_ATTRS:
        raise ConfigError(
            f"target_session_attrs: {wanted!r} is none of {', '.join(SESSION_ATTRS)}"
        )
    if wanted in ("standby", "read-only"):
        options.setdefault("fallback", "error")
