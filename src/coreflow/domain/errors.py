"""Errors of four kinds: a record is invalid, a peer is unavailable, a peer refuses, a precondition of ours fails.

A refusal of a peer and one of coreflow are different errors. A port raises `PortError` and nothing else for what its peer
did or did not do, and for what its peer could only refuse. A rule of our own, in the domain or the app, raises
`PreconditionFailed`.

Messages name records and paths, never values: a value may be a secret.
"""

from collections.abc import Iterator

from attrs import field, frozen


class CoreflowError(Exception):
    """Base of every error that coreflow raises on purpose."""


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions inside the groups that nurseries put around them."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc


@frozen
class Problem:
    """One thing wrong with a document: where (a path such as `$.services[2].data.name`), and what."""

    path: str
    text: str
    exact: str | None = field(default=None, repr=False)
    """The path with keys that are not shown: it finds the line, and no text has it."""

    def __str__(self) -> str:
        return f"{self.text} @ {self.path}"


class InvalidRecord(CoreflowError):
    """A document or a record cannot be understood. Carries every problem found, each with its path."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(map(str, self.problems))


class PreconditionFailed(CoreflowError):
    """A rule of ours says no, before a peer is asked. It will again, until what the text names has changed."""


class PortError(CoreflowError):
    """A peer did not do what was asked."""


class Unavailable(PortError):
    """It did not answer, or not yet. The same request may succeed later."""


class RateLimited(Unavailable):
    """It answers others, and us again when it has been left alone for a while."""


class Unreached(Unavailable):
    """Nobody listened: the request was not even received."""


class Unreadable(Unavailable):
    """A file with records cannot be read, or used as it is now. That says nothing about what it had before."""


class CannotListen(Unavailable):
    """An address at which this process wants to listen cannot be had."""


class Refused(PortError):
    """It answered no, or what can be of no use. Repeating the same request is pointless."""


class Untouched(Refused):
    """It answered no before it did anything: what the request is about is as it was."""


class LostRace(PortError):
    """Somebody else changed the object in between. Observe again and plan anew."""
