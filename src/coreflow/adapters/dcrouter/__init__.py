"""An external gateway of the kind dcrouter, over HTTP. Start at `Dcrouter`; names and certainties are in `methods`."""

from .port import Dcrouter

__all__ = ["Dcrouter"]
