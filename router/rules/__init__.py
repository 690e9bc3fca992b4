"""Where a statement may go; pure."""
