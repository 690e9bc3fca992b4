"""Options by the names of `router.config.Config`, each with the place it was found at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

ADDRESS = ("host", "port", "user", "password", "dbname", "driver", "params")
"""What describes the primary, beside ``url``, which says several of them at once."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What one source says, and nothing about what it leaves out.

    Attributes:
        values: by option name; beside the options ``url``, those of `ADDRESS` and ``replicas``.
        sources: where each was found, by the same names, in a word or two for people.
    """

    values: Mapping[str, object] = field(default_factory=dict, repr=False)
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, object], source: Callable[[str], str]) -> Self:
        """`values`, each with what `source` says of its name."""
        return cls(values, {name: source(name) for name in values})

    def over(self, below: "Settings") -> "Settings":
        """These settings and those of `below` that these leave out. Who names a host names a
        server: no credentials meant for another one are sent to it."""
        hidden = ADDRESS if "host" in self.values else ()
        kept = [name for name in below.values if name not in hidden]
        return self.beside(
            Settings(
                {name: below.values[name] for name in kept},
                {name: below.sources[name] for name in kept},
            )
        )

    def beside(self, below: "Settings") -> "Settings":
        """These settings and those of `below` that these leave out, credentials too."""
        return Settings({**below.values, **self.values}, {**below.sources, **self.sources})


def argument(name: str) -> str:
    """Where the option `name` was found that is an argument of a call."""
    return f"argument {name}"


def found_at(sources: Mapping[str, str], name: str) -> str:
    """What an error about `name` begins with: where it was found by `sources`, if that is news."""
    source = sources.get(name, name)
    return "" if source in (name, argument(name)) else f"{source}: "
