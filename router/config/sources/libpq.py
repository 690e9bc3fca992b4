"""libpq's environment variables and service files.

libpq reads them itself when it connects, but other drivers do not or only in part, and the router
has to know every address. Variables that are not listed here are left to the driver.

Source: https://www.postgresql.org/docs/current/libpq-envars.html
Source: https://www.postgresql.org/docs/current/libpq-pgservice.html
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

from router.config.sources.settings import Settings
from router.errors import ConfigError
from router.messages import did_you_mean

VARIABLES: dict[str, str] = {
    "PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password",
    "PGDATABASE": "dbname",
}  # fmt: skip
_PARTS = tuple(VARIABLES.values())


def read(environ: Mapping[str, str], service: str = "") -> Settings:
    """What libpq would take from `environ` where a connection says nothing; the name of its
    `service` is by default what ``PGSERVICE`` says.

    Raises:
        ConfigError: the service is nowhere, its file is malformed, or ``hostaddr`` is set.
    """
    if environ.get("PGHOSTADDR"):
        raise ConfigError(
            "PGHOSTADDR: it would send every node's connections to one server: unset it, and put "
            "the address into PGHOST"
        )
    found = {n: v for key, n in VARIABLES.items() if (v := environ.get(key))}
    names = {name: key for key, name in VARIABLES.items()}
    variables = Settings.of(found, names.__getitem__)
    if attrs := environ.get("PGTARGETSESSIONATTRS"):
        params = {"params": {"target_session_attrs": attrs}}
        variables = variables.beside(Settings.of(params, lambda _: "PGTARGETSESSIONATTRS"))
    service = service or environ.get("PGSERVICE", "")
    return read_service(service, environ).beside(variables) if service else variables


def read_service(name: str, environ: Mapping[str, str]) -> Settings:
    """The section `name` of the user's service file, else of the system's; `environ` names both.

    Raises:
        ConfigError: it is in neither, malformed, or sets ``hostaddr``.
    """
    files = service_files(environ)
    known: list[str] = []
    for path in files:
        try:
            text = path.read_text()
        except OSError:
            continue
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not UTF-8: give a service file") from None
        sections = _sections(text, path)
        known += sections
        if name in sections:
            section = _section(sections[name])
            return _settings(section, f"service {name} of {path}")
    looked = ", ".join(map(str, files))
    raise ConfigError(
        f"service {name!r} is not in {looked}"
        + (did_you_mean(name, known) if known else ": name the file in PGSERVICEFILE")
    )


def service_url(name: str, environ: Mapping[str, str]) -> str:
    """The section `name` as a URL; raises as `read_service` of `environ`, and without a host."""
    settings = read_service(name, environ)
    said = {key: str(value) for key, value in settings.values.items() if key != "params"}
    if "host" not in said:
        raise ConfigError(f"service {name!r}: it names no host: add host=")
    user, password = (quote(said.pop(key, ""), safe="") for key in ("user", "password"))
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    params = settings.values.get("params")
    query: dict[str, str] = {key: said[key] for key in ("host", "port") if key in said}
    query |= {str(k): str(v) for k, v in params.items()} if isinstance(params, Mapping) else {}
    return f"postgresql://{login}/{quote(said.get('dbname', ''), safe='')}?{urlencode(query)}"


def service_files(environ: Mapping[str, str]) -> list[Path]:
    """Where libpq looks for services, by `environ`, in its order. Its built-in directory is not
    known here; ``PGSYSCONFDIR`` names it."""
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    files = [Path(environ.get("PGSERVICEFILE") or home / ".pg_service.conf")]
    if directory := environ.get("PGSYSCONFDIR"):
        files.append(Path(directory) / "pg_service.conf")
    return files


def _sections(text: str, path: Path) -> dict[str, list[tuple[str, str]]]:
    """The lines of each section, and where each is; what is wrong in another one is no matter."""
    sections: dict[str, list[tuple[str, str]]] = {}
    section: list[tuple[str, str]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("["):
            # The first of two sections with one name counts, as in libpq.
            section = []
            sections.setdefault(line[1:].partition("]")[0], section)
        elif line and not line.startswith("#"):
            section.append((line, f"{path}: line {number}"))
    return sections


def _section(lines: list[tuple[str, str]]) -> dict[str, str]:
    section: dict[str, str] = {}
    for line, where in lines:
        key, separator, value = line.partition("=")
        # As libpq has it: a space before the sign would be part of the name.
        if not separator or " " in key or line.startswith("ldap://"):
            raise ConfigError(f"{where} is not key=value: correct it")
        if key == "service":
            raise ConfigError(f"{where}: a service cannot name another: remove it")
        section.setdefault(key, value)
    return section


def _settings(section: Mapping[str, str], source: str) -> Settings:
    if section.get("hostaddr"):
        raise ConfigError(
            f"{source}: hostaddr would send every node's connections to one server: put the "
            "address into host"
        )
    values: dict[str, object] = {k: v for k, v in section.items() if k in _PARTS and v}
    if params := {k: v for k, v in section.items() if k not in _PARTS}:
        values["params"] = params
    return Settings.of(values, lambda _: source)
