"""A cluster file, or a folder of them, as the source of records."""

from .age import AgeIdentity
from .port import FileCloudly

__all__ = ["AgeIdentity", "FileCloudly"]
