"""``pg-router completion``."""

import click
from click.shell_completion import get_completion_class

VARIABLE = "_PG_ROUTER_COMPLETE"
"""Where a shell's script says that it wants completions; click makes it of the program's name."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes this command in a shell.

    Exit status: 0 printed, 2 wrong usage.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    # Not source(), which for bash would run a bash to ask its version.
    complete = kind(click.Command("pg-router"), {}, "pg-router", VARIABLE)
    click.echo(complete.source_template % complete.source_vars())
