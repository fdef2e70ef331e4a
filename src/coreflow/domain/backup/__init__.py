"""Snapshots, backups, restores and their replication."""

from coreflow._moved import forward

__getattr__ = forward(__name__)
