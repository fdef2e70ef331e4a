"""Mounts: bind mounts, volumes with their driver's options, and what is wrong with them."""

from typing import Any

import pytest

from coreflow.domain.deploy.volumes import make_mounts
from coreflow.domain.records.converter import decode
from coreflow.domain.records.models import ServiceRecord
from coreflow.domain.swarm.images import Rejected
from coreflow.domain.swarm.specs import Mount

Json = dict[str, Any]


def service(
    *volumes: Json, binds: tuple[tuple[str, str], ...] = (), resources: Json | None = None
) -> ServiceRecord:
    """A service with volumes and bind mounts."""
    mounts = [{"hostFsPath": host, "containerFsPath": inside} for host, inside in binds]
    resources = {"volumeMounts": mounts} if binds else resources
    raw = {"id": "svc-shop", "name": "shop", "volumes": [*volumes], "resources": resources}
    return decode(raw, ServiceRecord)


def reasons(record: ServiceRecord) -> tuple[str, ...]:
    """Why there are no mounts."""
    with pytest.raises(Rejected) as caught:
        make_mounts(record)
    return caught.value.reasons


def facts(path: str, backup: str = "false") -> dict[str, str]:
    """What Corestore is told of a volume."""
    return {"serviceId": "svc-shop", "serviceName": "shop", "mountPath": path, "backup": backup}


def labels(path: str, backup: str = "false") -> dict[str, str]:
    """The same as labels of the volume."""
    return {f"serve.zone.{key}": value for key, value in facts(path, backup).items()}


@pytest.mark.parametrize("resources", [None, {}])
def test_nothing(resources: Json | None) -> None:
    """A service without mounts has none."""
    assert make_mounts(service(resources=resources)) == ()


def test_binds_first() -> None:
    """Bind mounts come first, each as the record has it, in the record's order."""
    mounts = make_mounts(service({"mountPath": "/data"}, binds=(("/srv/b", "/b"), ("/srv/a", "/a"))))
    assert mounts[:2] == (
        Mount(type="bind", source="/srv/b", target="/b"),
        Mount(type="bind", source="/srv/a", target="/a"),
    )
    assert [mount.type for mount in mounts] == ["bind", "bind", "volume"]


def test_default_volume() -> None:
    """A volume of a path alone has a derived name, Corestore's driver, and is not backed up."""
    assert make_mounts(service({"mountPath": "/data"})) == (
        Mount(
            type="volume",
            source="svc-shop-data-796cf2c8",
            target="/data",
            driver="corestore",
            options=facts("/data"),
            labels=labels("/data"),
        ),
    )


def test_every_field() -> None:
    """Name, driver, backup, access and options are the record's; its options win over the standing ones."""
    raw = {
        "mountPath": "/data",
        "name": "shop-data",
        "driver": "other",
        "backup": True,
        "readOnly": True,
        "options": {"size": "5G", "serviceName": "mine"},
    }
    assert make_mounts(service(raw)) == (
        Mount(
            type="volume",
            source="shop-data",
            target="/data",
            read_only=True,
            driver="other",
            options={**facts("/data", "true"), "serviceName": "mine", "size": "5G"},
            labels=labels("/data", "true"),
        ),
    )


def test_local_driver() -> None:
    """Docker's own driver gets the record's options only, since it refuses others."""
    (mount,) = make_mounts(service({"mountPath": "/data", "driver": "local", "options": {"type": "tmpfs"}}))
    assert (mount.driver, mount.options, mount.labels) == ("local", {"type": "tmpfs"}, labels("/data"))
    (plain,) = make_mounts(service({"mountPath": "/data", "driver": "local"}))
    assert plain.options == {}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (service(binds=(("srv", "/a"),)), "resources.volumeMounts[0].hostFsPath is not an absolute path"),
        (
            service(binds=(("/srv", "a"),)),
            "resources.volumeMounts[0].containerFsPath is not an absolute path",
        ),
        (
            service(binds=(("/srv\0", "/a"),)),
            "resources.volumeMounts[0].hostFsPath contains a null character",
        ),
        (service(binds=(("/srv", "/"),)), "resources.volumeMounts[0].containerFsPath is the root directory"),
        (service({"mountPath": "data"}), "volumes[0].mountPath is not an absolute path"),
        (service({"mountPath": ""}), "volumes[0].mountPath is not an absolute path"),
        (service({"mountPath": "//"}), "volumes[0].mountPath is the root directory"),
        (service({"mountPath": "/a/.."}), "volumes[0].mountPath is the root directory"),
        (service({"mountPath": "/a\0"}), "volumes[0].mountPath contains a null character"),
        (
            service({"mountPath": "/a", "name": "a/b"}),
            "volumes[0].name is not a Docker volume name (two or more of A-Z a-z 0-9 _ . -, at most 255)",
        ),
        (
            service({"mountPath": "/a", "name": "a" * 256}),
            "volumes[0].name is not a Docker volume name (two or more of A-Z a-z 0-9 _ . -, at most 255)",
        ),
        (
            service({"mountPath": "/" + "a" * 256}),
            "volumes[0].mountPath is longer than 3800 bytes, or a part of it than 255",
        ),
        (service({"mountPath": "/a" * 256}), "volumes[0].mountPath has more than 255 parts"),
        (
            service(binds=(("/a" * 2000, "/a"),)),
            "resources.volumeMounts[0].hostFsPath is longer than 3800 bytes, or a part of it than 255",
        ),
        (
            service({"mountPath": "/a/../proc/x"}),
            "volumes[0].mountPath belongs to the kernel: no container starts with a mount there",
        ),
        (
            service(binds=(("/srv", "/dev/"),)),
            "resources.volumeMounts[0].containerFsPath belongs to the kernel: no container starts with a mount there",
        ),
        (
            service({"mountPath": "/etc/hosts"}),
            "volumes[0].mountPath is a file that Docker makes: no volume can be there",
        ),
        (
            service({"mountPath": "/etc/hosts/x"}),
            "volumes[0].mountPath is below /etc/hosts, which is no directory: no container starts with a mount there",
        ),
        (
            service(binds=(("/srv", "/dev/null/x"),)),
            "resources.volumeMounts[0].containerFsPath is below /dev/null, which is no directory: no container starts with a mount there",
        ),
        (
            service({"mountPath": "/dev/null"}),
            "volumes[0].mountPath is a device that every container needs: no volume can be there",
        ),
        (
            service({"mountPath": "/dev/pts/x"}),
            "volumes[0].mountPath belongs to the kernel: no container starts with a mount there",
        ),
        (
            service({"mountPath": "/a", "driver": "local", "options": {"uid": "1"}}),
            "volumes[0].options.uid is no option of the driver local (device, o, size, type)",
        ),
        (service({"mountPath": "/a"}, {"mountPath": "/a/"}), "two mounts at /a"),
        (service({"mountPath": "/a"}, {"mountPath": "//a"}), "two mounts at /a"),
        (service({"mountPath": "/b/../a"}, binds=(("/srv", "/a"),)), "two mounts at /a"),
    ],
)
def test_problems(record: ServiceRecord, expected: str) -> None:
    """Paths that are relative, duplicate or the root, and unusable names, reject the record."""
    assert reasons(record) == (expected,)


def test_all_problems() -> None:
    """Every problem is found in one go."""
    record = service({"mountPath": "x", "name": "!"}, {"mountPath": "/"}, binds=(("a", "b"), ("/s", "/ok")))
    assert len(reasons(record)) == 5


def test_bind_of_the_root() -> None:
    """The node's root directory may be bound somewhere: only a target cannot be the root."""
    assert make_mounts(service(binds=(("/", "/host"),)))[0].source == "/"
