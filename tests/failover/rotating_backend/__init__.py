"""A Django backend whose users log in by tokens: see `tests.failover.test_credentials`."""
