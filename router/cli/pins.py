"""``pg-router pins``."""

import json
import math
import time
from datetime import UTC, datetime
from typing import TextIO

import click

from router.errors import ConfigError
from router.pins.token import Entry, Fault, Tokens, unverified


@click.command()
@click.argument("token")
@click.option(
    "--secret-file",
    metavar="FILE",
    type=click.File(),
    help="Secrets, one a line, newest first; - is standard input. Without it nothing is verified.",
)
@click.option("--json", "as_json", is_flag=True, help="One object.")
def pins(token: str, *, secret_file: TextIO | None, as_json: bool) -> None:
    """Show what a pin's token, from a cookie or header, says: which position, and how old.

    Its age is told; when it expires is for the services that read it to say.

    Exit status: 0 shown, 1 it is no token or not signed with these secrets, 2 wrong usage.
    """
    now = time.time()
    found: tuple[Entry, ...] | Fault
    if secret_file is None:
        found = unverified(token)
    else:
        try:
            secrets = secret_file.read().split()
        except UnicodeDecodeError:
            raise click.UsageError("--secret-file: not UTF-8: give a file of texts") from None
        try:
            found = Tokens(secrets, max_age=math.inf).read(token, now)
        except (ConfigError, ValueError) as error:
            raise click.UsageError(f"--secret-file: {error}") from None
    if isinstance(found, Fault):
        why = "no pin's token" if found is Fault.MALFORMED and secret_file is None else found
        raise click.ClickException(f"TOKEN: {why}: copy the cookie's or header's whole value")
    verified = secret_file is not None
    if as_json:
        rows = [
            {
                "cluster": entry.id,
                "written": entry.written,
                "age": now - entry.written,
                "lsn": None if entry.lsn is None else str(entry.lsn),
                "timeline": entry.timeline or None,
            }
            for entry in found
        ]
        click.echo(json.dumps({"verified": verified, "pins": rows}, indent=2))
        return
    click.echo("signature: " + ("good" if verified else "not verified, no --secret-file"))
    for entry in found:
        click.echo(_told(entry, now))


def _told(entry: Entry, now: float) -> str:
    where = (
        "no position known: the primary"
        if entry.lsn is None
        else f"a replica past {entry.lsn} on timeline {entry.timeline}"
    )
    try:
        written = datetime.fromtimestamp(entry.written, UTC).isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):  # nothing says that an unverified one is sane
        written = f"{entry.written:.0f} s after 1970"
    return f"cluster {entry.id}: needs {where}; written {written}, {now - entry.written:.1f} s ago"
