"""How the servers of a cluster are, as one process sees them."""
