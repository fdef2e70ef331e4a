"""Names that have moved to `coreflow.adapters.net.typedsocket`; they stay here for a release."""

import warnings
from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    found = getattr(import_module("coreflow.adapters.net.typedsocket"), name)
    warnings.warn(
        f"{__name__}.{name} is coreflow.adapters.net.typedsocket.{name} now", DeprecationWarning, stacklevel=2
    )
    return found
