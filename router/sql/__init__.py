"""What a statement does, by PostgreSQL's own grammar and the server's catalog; pure."""
