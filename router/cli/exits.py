"""Exit statuses of ``pg-router`` that are the same for every command."""

MISSING = 2
"""Wrong usage, and packages an extra would bring."""

INTERRUPTED = 130
"""After Ctrl-C, as shells have it, and after SIGTERM."""
