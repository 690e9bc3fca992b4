"""What an application says in a comment of its text: ``/* router: primary */``.

Only a comment counts, and only one that says nothing else: a literal or a name that looks like one
does not.
"""

import re

from router.sql import placeholders

NODES = ("primary", "replica")
"""Where a hint may send a statement. The first one wins where a text has both."""

_HINT = re.compile(r"/\*\s*router\s*:\s*([^*]*?)\s*\*/", re.IGNORECASE)


def hints(sql: str) -> tuple[str, ...]:
    """What the hints of `sql` say, in lower case, whether it is known or not."""
    if not _HINT.search(sql):
        return ()
    comments = (sql[begin:end] for begin, end in placeholders.comments(sql) if end > 0)
    return tuple(found[1].lower() for c in comments if (found := _HINT.fullmatch(c)) is not None)


def hinted(sql: str) -> str | None:
    """Where `sql` itself says that it is to run: one of `NODES`, or None."""
    said = hints(sql)
    return next((node for node in NODES if node in said), None)
