"""How an error or a log line is worded: one line, without secrets.

Whatever quotes a URL, an option's value or another library's error goes through `masked` or
`one_line` first.
"""

import difflib
import re
from collections.abc import Iterable

# Generous on purpose: a password that was not percent-encoded may hold spaces, "@", "/" or ":",
# and masking too much of a message is better than one character too little.
_URL_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+]*://[^:\s]*:).*(?=@)", re.IGNORECASE)
_KEY_PASSWORD = re.compile(
    r"""(?P<head>pass\w*\s*=\s*)('(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$)|(?:\\.|[^\s\\])+)""",
    re.IGNORECASE | re.DOTALL,
)
_SECRET_NAME = re.compile(r"pass(?!file)|secret|key\b|_key$", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` with the password of every URL and ``password=`` setting replaced by ``***``."""
    return _KEY_PASSWORD.sub(r"\g<head>***", _URL_PASSWORD.sub(r"\g<head>***", text))


def is_secret(name: str) -> bool:
    """Whether the value of a parameter called `name` is never shown."""
    return _SECRET_NAME.search(name) is not None


def one_line(said: object) -> str:
    """`said`, an error or a text, as one line without secrets; its class if it is empty."""
    text = masked(" ".join(str(said).split()))
    return text or (type(said).__name__ if isinstance(said, BaseException) else "")


def kind_of(value: object) -> str:
    """What kind of thing `value` is, for errors about what may be a secret."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def did_you_mean(unknown: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` when something close to `unknown` is known, else what is."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(unknown.lower(), names, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {names[close[0]]!r}?)"
    return f" (known: {', '.join(sorted(names.values()))})"
