"""Reasons get the file and line of the field that they are about, or of what is around it, or of the record."""

from collections.abc import Iterable, Mapping

import pytest
from attrs import evolve

from coreflow.domain.deploy.desired import Note, Rejection
from coreflow.domain.deploy.located import located, located_notes
from coreflow.domain.ids import ServiceId
from coreflow.domain.records.codec import decode_records
from coreflow.domain.records.models import Records
from coreflow.domain.records.places import place_of

LINES = {
    "$": "f:1",
    "$.services": "f:2",
    "$.services[1]": "f:3",
    "$.services[1].id": "f:3",
    "$.services[1].data": "f:4",
    "$.services[1].data.name": "f:5",
    "$.services[1].data.ports": "f:6",
    "$.services[1].data.ports.custom.a.b": "f:7",
    "$.services[1].data.domains": "f:8",
    "$.services[1].data.additionalSecretBundleIds": "f:9",
    "$.services[1].data.image": "f:10",
    "$.services[2]": "f:20",
    "$.services[2].name": "f:21",
    "$.services[3]": "f:30",
}


class Lines:
    """Places that are known."""

    def below(self, paths: Iterable[str]) -> Mapping[str, str]:
        """Those below the paths, and what is above them."""
        assert all(path.startswith("$.services[") for path in paths)
        return LINES


def records() -> Records:
    """A service that cannot be decoded, one that can, a flat one, and one without an id."""
    raw = [
        {"id": "x", "name": 1},
        {"id": "a", "data": {"name": "a"}},
        {"id": "b", "name": "b"},
        {"name": "c"},
    ]
    found = decode_records({"configData": {"id": "c"}, "services": raw})
    return evolve(found, origin=evolve(found.origin, places=Lines()))


def reason_of(text: str, unit: str = "a", name: str = "a", *, held: bool = False) -> str:
    """What becomes of a reason."""
    rejection = Rejection(unit=unit, name=name, reasons=(text,), held=held)
    ((found,),) = (one.reasons for one in located((rejection,), records()))
    return found


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name is not usable as a service name", "f:5"),
        ("ports.web is not a port", "f:6"),
        ("ports.custom.a.b is not a port", "f:7"),
        ("domains[4] has no port, and ports.web is missing", "f:8"),
        ("the host name x.example.com belongs to service b", "f:8"),
        ("the name a belongs to the base", "f:5"),
        ("secret bundle b does not exist", "f:9"),
        ("scaleFactor asks for more tasks than the nodes can take", "f:3"),
        ("image x does not exist", "f:3"),
        ("something else", "f:3"),
        ("2 service records have the id a", "f:3"),
    ],
)
def test_a_reason_has_the_place_of_its_field(text: str, place: str) -> None:
    """The field that it begins with, or that it is about by its first words; else the record's own."""
    assert reason_of(text) == f"{text} ({place})"


def test_a_shared_id_has_the_places_of_all_records_that_have_it() -> None:
    """The first alone would send people to the record that is right."""
    calm = records()
    twins = evolve(calm, services=tuple(evolve(s, id=ServiceId("a")) for s in calm.services))
    rejection = Rejection(unit="a", name="a", reasons=("2 service records have the id a: a and b", "other"))
    (found,) = located((rejection,), twins)
    assert found.reasons == ("2 service records have the id a: a and b (f:3 and f:20)", "other (f:3)")


def test_what_is_said_of_a_secret_group_has_its_place() -> None:
    """A reason as well as a note; other notes, and those about groups that nobody wrote by hand, stay."""
    raw = [{"id": 1}, {"id": "g", "key": "K", "environments": {}}]
    found = decode_records(
        {"configData": {"id": "c"}, "services": [{"id": "a", "name": "a"}], "secretGroups": raw}
    )
    given = evolve(found, origin=evolve(found.origin, places=GroupLines()))
    text = "secret group g has no value for environment x: left out"
    notes = (Note(unit="a", name="a", text=text), Note(unit="a", name="a", text="other"))
    assert [note.text for note in located_notes(notes, given)] == [f"{text} (f:40)", "other"]
    (rejection,) = located((Rejection(unit="a", name="a", reasons=(text,)),), given)
    assert rejection.reasons == (f"{text} (f:40)",)
    assert located_notes(notes, found) == notes


class GroupLines:
    """Places of a service and a secret group."""

    def below(self, paths: Iterable[str]) -> Mapping[str, str]:
        """Those that are asked for."""
        known = {"$.services[0]": "f:3", "$.secretGroups[1]": "f:40"}
        return {path: known[path] for path in paths}


def test_records_of_every_kind_are_found() -> None:
    """Flat ones, those that cannot be decoded, and those without an id by their name."""
    assert reason_of("name is taken", "b", "b") == "name is taken (f:21)"
    assert reason_of("name is taken", "", "c") == "name is taken (f:30)"
    assert reason_of("name is taken", "x", "x") == "name is taken (f:2)"


def test_what_has_a_place_or_is_no_fault_of_a_record_stays() -> None:
    """The decoder's reasons have theirs, a registry that is away has none, and nor have base services."""
    assert (
        reason_of("name is missing @ $.services[1].data.name (f:4)")
        == "name is missing @ $.services[1].data.name (f:4)"
    )
    assert reason_of("image x: no answer", held=True) == "image x: no answer"
    assert reason_of("no network", "base", "base") == "no network"


def test_records_that_nobody_wrote_by_hand_have_no_places() -> None:
    """Those of a control plane."""
    rejections = (Rejection(unit="a", name="a", reasons=("name is taken",)),)
    calm = records()
    assert located(rejections, evolve(calm, origin=evolve(calm.origin, places=None))) is rejections
    assert located((), calm) == ()


def test_the_whole_document_is_no_place() -> None:
    """That it begins in line 1 helps nobody."""
    assert place_of("$.nothing", LINES) is None
    assert place_of("nowhere", LINES) is None
    assert place_of("$.services[7].x (key)", LINES) == "f:2"
