"""The command ``pg-router``. What a command needs is imported when it runs."""

import sys

MISSING = 2
"""Exit status for wrong usage, and for packages an extra would bring."""


def main() -> None:
    """Run the command line; the console script's entry point."""
    try:
        from router.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(
            f"pg-router: {error.name} is not installed: pip install 'pg-router[cli]', "
            "or 'pg-router[demo]' for the demo\n"
        )
        sys.exit(MISSING)
    app(prog_name="pg-router")
