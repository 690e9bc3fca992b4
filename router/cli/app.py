"""The click group: names and one-line helps here, each command's code in a file of its name."""

import logging
from importlib import import_module

import click

from router.cli.exits import INTERRUPTED, MISSING

_COMMANDS = {
    "budget": "Count the connections that may be opened, and ask the servers.",
    "completion": "Print the script that completes this command in a shell.",
    "config": "Show every setting and where it came from.",
    "demo": "Show it at work on a real primary with real replicas.",
    "doctor": "Find what is wrong with servers and settings.",
    "explain": "Say what a statement does and where it would go.",
    "pgbouncer-ini": "Write pgbouncer.ini and userlist.txt for the cluster.",
    "pins": "Show what a pin's token says.",
    "status": "Ask every node how it is, and who is connected.",
    "wait": "Wait until the cluster is usable.",
}


class _Lazy(click.Group):
    """Loads a command's module only when that command is run or asked for help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called `cmd_name`."""
        if cmd_name not in _COMMANDS:
            return None
        module = cmd_name.replace("-", "_")
        command = getattr(import_module(f"router.cli.{module}"), module)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(
    cls=_Lazy,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="pg-router", prog_name="pg-router")
@click.pass_context
def app(ctx: click.Context) -> None:
    """Splits PostgreSQL traffic between a primary and its streaming replicas.

    Exit status: 0 all is well, 1 something is not, 2 wrong usage, 130 interrupted.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit(MISSING)


def run() -> int:
    """Run the command line; its exit status. A mistake is told in one line."""
    # A command prints what it has to say, so logging's last resort must not print it again.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        status = app.main(prog_name="pg-router", standalone_mode=False)
    except click.ClickException as error:
        message = " ".join(error.format_message().split())
        command = getattr(getattr(error, "ctx", None), "command_path", "pg-router")
        click.echo(f"{command}: {message}", err=True)
        return error.exit_code
    except OSError as error:
        click.echo(f"pg-router: {error}", err=True)
        return 1
    except click.Abort:
        return INTERRUPTED
    return status if isinstance(status, int) else 0
