"""Routing: who is reachable under which host name, with which certificate."""
