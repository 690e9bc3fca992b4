"""``pg-router pgbouncer-ini``."""

import os
import secrets
from pathlib import Path
from typing import get_args

import click

from router.cli.source import Servers, servers
from router.config import pgbouncer_ini as files
from router.config.config import Config
from router.config.options import Pooling


@click.command("pgbouncer-ini")
@servers
@click.option(
    "--directory",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where to write both files. Without it pgbouncer.ini is printed, and no secret.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=6432, show_default=True)
@click.option(
    "--pool-mode",
    type=click.Choice([mode for mode in get_args(Pooling) if mode != "off"]),
    help="By default as configured, else transaction.",
)
@click.option(
    "--pool-size",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Server connections for each database and user.",
)
@click.option("--auth", type=click.Choice(files.AUTHS), default="scram-sha-256", show_default=True)
@click.option(
    "--hash/--plain",
    "hashed",
    default=False,
    help="Write hashes. By SCRAM they open a server only where it keeps the very same.",
)
@click.option(
    "--max-prepared-statements", type=click.IntRange(0), default=0, help="For PgBouncer 1.21."
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
def pgbouncer_ini(
    where: Servers,
    *,
    directory: Path | None,
    port: int,
    pool_mode: str | None,
    pool_size: int,
    auth: files.Auth,
    hashed: bool,
    max_prepared_statements: int,
    force: bool,
) -> None:
    """Write pgbouncer.ini and userlist.txt for the configured servers.

    The primary's database keeps its name; each replica's has the node's name behind it. Nothing is
    connected to.

    Exit status: 0 written, 2 wrong usage, or a file is there already.
    """
    config = where.config()
    default = config.pgbouncer if config.pgbouncer != "off" else "transaction"
    wanted = files.Bouncer(
        port=port,
        pool_mode=pool_mode or default,
        pool_size=pool_size,
        auth=auth,
        max_prepared_statements=max_prepared_statements,
    )
    text = files.ini(config, wanted)
    if directory is None:
        click.echo(text, nl=False)
        return
    listed = files.userlist(_secrets(config, auth if hashed else "trust"))
    for name, content in (("pgbouncer.ini", text), ("userlist.txt", listed)):
        _write(directory / name, content, force)
    click.echo(f"{directory / 'pgbouncer.ini'}: {', '.join(files.databases(config).values())}")


def _secrets(config: Config, auth: files.Auth) -> dict[str, str]:
    """The password of each user, hashed as `auth` says; "trust" leaves it as it is."""
    found = files.users(config)
    if auth == "md5":
        return {user: files.md5(user, password) for user, password in found.items() if password}
    if auth == "scram-sha-256":
        salt = secrets.token_bytes  # of 16 bytes, as PostgreSQL takes
        return {user: files.scram(text, salt(16)) for user, text in found.items() if text}
    return found


def _write(path: Path, content: str, force: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        # Readable by its owner alone from the first moment.
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise click.UsageError(f"{path} is there already: give --force, or remove it") from None
    with os.fdopen(descriptor, "w") as opened:
        opened.write(content)
