"""How a connection to a server is made, and asked whether the server is there."""
