"""A guestbook on a primary and its replicas."""
