"""Names that peers use, as they are written down: with how well each is known, and with its other spellings.

- `read`: read in public material (interfaces, source, readmes);
- `older`: read in an older version only;
- `inferred`: follows from what was read, and stands nowhere;
- `recalled`: somebody's memory of this ecosystem's habits;
- `proposed`: our own shape in the ecosystem's style, because no public source has it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attrs import frozen


class Certainty(StrEnum):
    """The certainty of a name or a shape."""

    READ = "read"
    OLDER = "older"
    INFERRED = "inferred"
    RECALLED = "recalled"
    PROPOSED = "proposed"


@frozen
class Member:
    """A member of a JSON object. Where it may have several names, the first is what we write, and all are read, in order."""

    names: tuple[str, ...]
    certainty: Certainty
    meaning: str = ""

    @property
    def name(self) -> str:
        """The name under which it is written."""
        return self.names[0]

    def of(self, raw: object) -> Any:
        """Its value in an object, where a null counts as absent. None: it is not there, or that is no object."""
        if not isinstance(raw, Mapping):
            return None
        return next((raw[name] for name in self.names if raw.get(name) is not None), None)
