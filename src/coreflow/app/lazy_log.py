"""A log that costs nothing until something is logged: structlog takes longer to import than some commands to run."""

from typing import Any


class LazyLog:
    """The same as `structlog.get_logger()`."""

    def __getattr__(self, name: str) -> Any:
        import structlog

        return getattr(structlog.get_logger(), name)
