"""Calls of an engine that are counted: by method, path without names, and answer."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .protocol import EngineError, EngineUnreachable

OnCall = Callable[[str, str, str, float], None]
"""Takes the method, the path without names, the HTTP status (`none` where there was no answer), and seconds."""
_VERBS = frozenset({"create", "update", "json", "tag", "load"})
"""The ends of paths that are no names."""


def path_without_names(path: str) -> str:
    """Return a path with `{id}` for what is between its kind and its verb."""
    first, *others = path.strip("/").split("/")
    verb = others[-1] if others and others[-1] in _VERBS else None
    names = others[:-1] if verb is not None else others
    parts = (first, *(("{id}",) if names else ()), *((verb,) if verb is not None else ()))
    return f"/{'/'.join(parts)}"


@contextmanager
def timed(on_call: OnCall | None, method: str, path: str) -> Iterator[None]:
    """Tell of what the block asks for, when it has ended; of what is cancelled, nothing."""
    if on_call is None:
        yield
        return
    began, code = time.monotonic(), "200"
    try:
        yield
    except EngineError as exc:
        code = str(exc.status)
        raise
    except EngineUnreachable:
        code = "none"
        raise
    except BaseException:
        code = ""
        raise
    finally:
        if code:
            on_call(method, path_without_names(path), code, time.monotonic() - began)
