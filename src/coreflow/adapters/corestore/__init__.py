"""Corestore's control API: databases and object storage for services. Start at `Corestore`; names are in `methods`."""

from .port import Corestore

__all__ = ["Corestore"]
