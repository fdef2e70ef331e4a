"""Tags: names, each with a payload, by which a server finds its connections again.

They travel as ordinary requests (methods and shapes read in typedsocket 4.1.0, frames captured). A tag lives as long
as its connection, so a client sets it again after every reconnect.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import frozen

from .envelope import encode
from .errors import NotJson, TooLarge
from .events import TagRefused, TagRemoved, TagSet
from .limits import Limits

SET_TAG = "__typedsocket_setTag"
REMOVE_TAG = "__typedsocket_removeTag"

TagPolicy = Callable[[str, object], bool]
"""Whether the peer may set this tag, with this payload."""

_NAME_LIMIT = 256


@frozen
class TagAnswer:
    """The answer to a question about a tag, and what to tell the owner."""

    success: bool
    event: TagSet | TagRemoved | TagRefused | None = None


class Tags:
    """The tags of one connection, on the server's side."""

    def __init__(self, policy: TagPolicy, limits: Limits) -> None:
        self._policy = policy
        self._limits = limits
        self._tags: dict[str, object] = {}

    @property
    def current(self) -> Mapping[str, object]:
        """Payloads by name."""
        return MappingProxyType(self._tags)

    def handle(self, method: str, request: Mapping[str, object]) -> TagAnswer:
        """Set or remove a tag. Setting one again overwrites its payload; removing one that is not there succeeds."""
        name = request.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= _NAME_LIMIT:
            return TagAnswer(success=False, event=TagRefused("", "its name is not a short string"))
        if method == REMOVE_TAG:
            removed = name in self._tags
            self._tags.pop(name, None)
            return TagAnswer(success=True, event=TagRemoved(name) if removed else None)
        payload = request.get("payload")
        if (reason := self._objection(name, payload)) is not None:
            return TagAnswer(success=False, event=TagRefused(name, reason))
        self._tags[name] = payload
        return TagAnswer(success=True, event=TagSet(name, payload))

    def clear(self) -> None:
        """The connection ended."""
        self._tags.clear()

    def _objection(self, name: str, payload: object) -> str | None:
        if name not in self._tags and len(self._tags) >= self._limits.tags:
            return f"the connection has {self._limits.tags} tags already"
        try:
            encode(payload, self._limits.tag_bytes)
        except (NotJson, TooLarge):
            return f"its payload is over the limit of {self._limits.tag_bytes} bytes, or nests too deep"
        return None if self._policy(name, payload) else "the owner of this connection does not allow it"
