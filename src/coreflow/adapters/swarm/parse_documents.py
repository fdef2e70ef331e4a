"""Reading documents of an engine that need not be what they should: an error with the path, not a bug."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from coreflow.domain.errors import Unavailable

T = TypeVar("T")


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn what reading a document at `path` may raise into Unavailable. Names members, never values."""
    try:
        yield
    except KeyError as exc:
        member = exc.args[0] if exc.args and isinstance(exc.args[0], str) else "a member"
        raise Unavailable(f"the engine's answer cannot be read: {path}: {member} is missing") from exc
    except (AttributeError, TypeError, ValueError) as exc:
        raise Unavailable(f"the engine's answer cannot be read: {path}: a member is of another kind") from exc


def read_each(kind: str, documents: Iterable[Any], read: Callable[[Any], T]) -> tuple[T, ...]:
    """Read every document of a list. Raises Unavailable for the first one that cannot be read."""
    found: list[T] = []
    index = 0
    try:
        for document in documents:
            found.append(read(document))
            index += 1
    except (KeyError, AttributeError, TypeError, ValueError) as exc:
        with readable(f"$.{kind}[{index}]"):
            raise exc  # noqa: TRY201 - the same one, with its path
    return tuple(found)
