"""Services that cannot be decoded: everything wrong with them is said at once, and nothing that is not."""

from typing import Any

import pytest

from coreflow.domain.deploy.desired import Desired, RenderOptions
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.ids import ID_LIMIT
from coreflow.domain.records.codec import decode_records
from coreflow.domain.records.models import Records
from coreflow.domain.records.salvage import salvage
from coreflow.domain.swarm.observed import Observed

GOOD: dict[str, Any] = {"name": "shop", "registryTarget": {"imageUrl": "r.example.com/a:1"}}
QUOTES = "expected text, got an integer: put quotes around it"
DIGITS = "expected an integer, got text: write a number, without quotes or a unit"


def rendered(*services: Any) -> Desired:
    """What becomes of a document with these services, of images that nobody looks up."""
    return rendered_records(decode_records({"configData": {"id": "c1"}, "services": list(services)}))


def rendered_records(records: Records) -> Desired:
    """What becomes of records, of images that nobody looks up."""
    return Renderer(RenderOptions()).render(records, Observed(), {})


def reasons(data: dict[str, Any], identity: object = "s1") -> list[str]:
    """Why a service is rejected."""
    (rejection,) = (
        r
        for r in rendered({"id": identity, "data": {**GOOD, **data}}).rejections
        if not r.unit.startswith("base")
    )
    return [
        reason.replace("$.services[0].data.", "").replace("$.services[0]", "$")
        for reason in rejection.reasons
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"name": "-", "antiAffinity": "x"}, ["name is not usable"]),
        ({"environment": {"A": 5, "B=": "x"}}, ["environment: a variable's name is empty"]),
        ({"environment": {"A": 5, "B": "\0"}}, ["environment.B contains a null character"]),
        ({"environment": {"A.B": 5, "A.C": "\0", "A[0]": "\0"}}, ["environment.A.C contains", "environment.A[0] contains"]),
        ({"environment": 5, "scaleFactor": 2**63}, ["scaleFactor is too large"]),
        ({"ports": {"web": "80", "custom": {"a_b": "80", "ok": "0"}}}, ["ports.custom.a_b is not a host name", "ports.custom.ok is not a port"]),
        ({"ports": {"web": 0, "custom": {"a": [], "b": "x"}}}, ["ports.web is not a port", "ports.custom.b is not a port"]),
        ({"ports": 5, "domains": ["a", {"name": "-"}]}, ["domains[1].name is not a host name"]),
        ({"ports": {"web": "80"}, "domains": ["a", {"name": "b", "port": 0}]}, ["domains[1].port is not a port"]),
        ({"domains": [{"name": "-", "port": "80"}]}, ["domains[0].name is not a host name"]),
        ({"domains": [5, {"name": "a", "port": 0}, {"port": 5}, {"name": "b"}]}, ["domains[1].port is not a port", "domains[3] has no port"]),
        ({"domains": [{"name": "a", "port": 1}, 5, {"name": "a", "port": "1"}, "x"]}, ["domains[2].name: the host name a occurs twice", "domains[3] has no port"]),
        ({"volumes": [{"mountPath": 5}, {"mountPath": "x"}, {}, {"mountPath": "/", "backup": 1}]}, ["volumes[1].mountPath is not an absolute path", "volumes[3].mountPath is the root directory"]),
        ({"resources": {"memorySizeLimitMB": "x", "memorySizeReservationMB": 5000}}, []),
        ({"resources": {"cpuLimit": "x", "volumeMounts": [{"hostFsPath": "x"}, {"hostFsPath": "x", "containerFsPath": "/y"}]}}, ["resources.volumeMounts[1].hostFsPath is not an absolute path"]),
        ({"resources": 5, "healthCheck": {"command": ["x"], "retries": -1}}, ["healthCheck.retries"]),
        ({"healthCheck": {"command": [5], "retries": -1}, "maxReplicas": "x"}, ["healthCheck.retries"]),
        ({"healthCheck": {"command": 5, "retries": -1}, "ports": {"web": 0}}, ["ports.web is not a port"]),
        ({"registryTarget": {"imageUrl": 5}, "ports": {"web": 0}}, ["ports.web is not a port"]),
        ({"registryTarget": {"imageUrl": "A b"}, "scaleFactor": "x"}, ["registryTarget: not a valid image reference"]),
        ({"registryTarget": None, "scaleFactor": "x"}, ["no image: imageId is missing"]),
        ({"registryTarget": None, "imageId": "i", "imageVersion": 1.5, "secretBundleId": "b"}, ["secret bundle b does not exist"]),
        ({"secretBundleId": 5, "additionalSecretBundleIds": ["b", 5]}, ["secret bundle b does not exist"]),
        ({"name": 5, "ports": {"web": 0}}, ["ports.web is not a port"]),
        ({"name": None, "ports": {"web": 0}}, ["ports.web is not a port"]),
        ({"serviceCategory": 5, "ports": {"web": 0}}, []),
        ({"serviceCategory": "base", "maxReplicas": "x", "ports": {"web": 0}}, []),
    ],
)  # fmt: skip
def test_errors_of_type_and_value_come_together(data: dict[str, Any], expected: list[str]) -> None:
    """What is wrong with the rest of a record is said as well, with the numbers that elements have in the record."""
    of_value = [reason for reason in reasons(data) if " @ " not in reason]
    assert len(of_value) == len(expected), of_value
    for text, beginning in zip(sorted(of_value), sorted(expected), strict=True):
        assert text.startswith(beginning)
    assert any(" @ " in reason for reason in reasons(data))


@pytest.mark.parametrize(
    "identity", ["", " ", "\t", "base", "base/corelog", "a\0b", "a\nb", "x" * (ID_LIMIT + 1), 5, None]
)
def test_an_unusable_id_is_said_with_the_rest(identity: object) -> None:
    """A record whose id marks nothing is rejected, with everything else that is wrong with it."""
    found = reasons({"ports": {"web": 0}, "scaleFactor": "2"}, identity)
    assert max(found) == "ports.web is not a port (1 to 65535)"
    assert f"{DIGITS} @ scaleFactor" in found
    assert any(reason.endswith(" @ $.id") for reason in found)
    assert len(found) == 3


@pytest.mark.parametrize("identity", ["", "base", "base/corelog", "\x85"])
def test_nothing_is_pruned_while_an_id_is_unusable(identity: str) -> None:
    """Whose objects such a record means cannot be known, so none is said to be unwanted, and its name stays taken."""
    desired = rendered({"id": identity, "data": GOOD})
    assert not desired.prune
    assert "shop" in desired.held_names


@pytest.mark.parametrize("identity", ["s1", "based", "base-1", "Base", "a/b", "ünï", "x" * ID_LIMIT])
def test_any_other_id_is_fine(identity: str) -> None:
    """Ids are compared as they are."""
    records = decode_records({"configData": {"id": "c1"}, "services": [{"id": identity, "data": GOOD}]})
    assert not records.rejected
    assert records.services[0].id == identity


@pytest.mark.parametrize("kind", ["images", "externalRegistries", "secretBundles", "secretGroups"])
@pytest.mark.parametrize("identity", ["", " ", "a\0b", "x" * (ID_LIMIT + 1)])
def test_other_records_need_usable_ids_too(kind: str, identity: str) -> None:
    """Nobody could refer to them."""
    document = {
        "configData": {"id": "c1"},
        "services": [],
        kind: [{"id": identity, "url": "r", "location": {}, "key": "k"}],
    }
    (rejected,) = decode_records(document).rejected
    (reason,) = rejected.reasons
    assert reason.endswith(f" @ $.{kind}[0].id")


def test_value_errors_come_with_those_of_the_image() -> None:
    """A missing image or secret bundle hides nothing else."""
    found = reasons({"registryTarget": None, "imageId": "i", "secretBundleId": "b", "ports": {"web": 0}})
    assert found == [
        "image i does not exist",
        "secret bundle b does not exist",
        "ports.web is not a port (1 to 65535)",
    ]


def test_a_bad_record_is_not_held_for_its_image() -> None:
    """A record that cannot be deployed is rejected, also while its image cannot be looked up."""
    (rejection,) = (
        r for r in rendered({"id": "s1", "data": {**GOOD, "ports": {"web": 0}}}).rejections if r.unit == "s1"
    )
    assert not rejection.held
    assert rejection.reasons == ("ports.web is not a port (1 to 65535)",)


@pytest.mark.parametrize("raw", [{}, {"id": 1}, {"name": []}])
def test_what_nothing_can_be_made_of(raw: dict[str, Any]) -> None:
    """A decoder that takes nothing is not asked for ever."""

    def refuse(_: object) -> None:
        decode_records(None)

    assert salvage(raw, refuse, {"id": "x"}) is None
