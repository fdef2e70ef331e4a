"""Facts about a field beside its type: what it means, and what belongs into it.

The attrs classes carry it as metadata. From there come the note of unknown fields and the JSON Schema (`shapes`); the
tables of docs/records.md are held to it by a test.
"""

from collections.abc import Mapping

import attrs
from attrs import frozen

_KEY = "coreflow"


@frozen(kw_only=True)
class About:
    """Facts about one field."""

    meaning: str = ""
    default: object = None
    """What counts where the field is left out; None: nothing, or what the class says."""
    least: float | None = None
    most: float | None = None
    unused: bool = False
    """Read, so that it is no mistake to write it, and not used."""
    older: bool = False
    """An older spelling of something else."""


def about(
    meaning: str,
    *,
    default: object = None,
    least: float | None = None,
    most: float | None = None,
    unused: bool = False,
    older: bool = False,
) -> Mapping[str, About]:
    """The metadata of a field."""
    return {_KEY: About(meaning=meaning, default=default, least=least, most=most, unused=unused, older=older)}


def about_of(attribute: "attrs.Attribute[object]") -> About:
    """Return what the metadata of a field says."""
    found = attribute.metadata.get(_KEY)
    return found if isinstance(found, About) else About()
