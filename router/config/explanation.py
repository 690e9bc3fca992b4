"""What a Config says of itself: every setting, and where it came from."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from router.config.options import OPTIONS
from router.messages import masked

if TYPE_CHECKING:
    from router.config.config import Config


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every setting: `rows` of its name, its value without secrets and where that came from, the
    servers first."""

    rows: tuple[tuple[str, object, str], ...]

    def __str__(self) -> str:
        shown = [(name, str(value), source) for name, value, source in self.rows]
        wide = [max(len(row[i]) for row in shown) for i in (0, 1)]
        return "\n".join(
            f"{name:{wide[0]}}  {value:{wide[1]}}  {source}" for name, value, source in shown
        )


def explained(config: "Config") -> Explanation:
    """Every setting of `config`, masked, and where its value came from."""
    defaults = {f.name: f.default for f in fields(config)}
    rows: list[tuple[str, object, str]] = []
    for node, server in config.servers().items():
        host = config.sources.get("host", "argument")
        for name, value in server.shown().items():
            key, default = "replicas", host
            if server is config.primary:
                key, default = name, "default" if config.sources else host
            rows.append((f"{node.name}.{name}", value, config.sources.get(key, default)))
    for name in OPTIONS:
        value = getattr(config, name)
        plain = isinstance(value, bool | int | float | None)
        shown = list(value) if isinstance(value, tuple) else value
        if not plain and not isinstance(shown, list):  # a callable may tell a secret too
            shown = masked(value if isinstance(value, str) else repr(value))
        default = "default" if value == defaults[name] else "argument"
        rows.append((name, shown, config.sources.get(name, default)))
    return Explanation(tuple(rows))
