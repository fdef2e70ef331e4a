"""Whose fault an ended task was, by the texts of SwarmKit, dockerd and the container run time."""

import pytest
from tests.unit.domain.examples import live, spec, task

from coreflow.domain.swarm.failures import Cause, cause_of, cause_of_text, common_cause

WEB = live(spec())


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("task: non-zero exit (1)", Cause.IMAGE),
        ("task: non-zero exit (139)", Cause.IMAGE),
        ("task: non-zero exit (137)", Cause.PLATFORM),
        ("task: non-zero exit (143)", Cause.PLATFORM),
        ("task: non-zero exit (255)", Cause.UNKNOWN),
        ("task: non-zero exit (255): dockerexec: unhealthy container", Cause.IMAGE),
        ("task: non-zero exit (25)", Cause.IMAGE),
        ("task: non-zero exit (137): dockerexec: unhealthy container", Cause.IMAGE),
        ("No such image: app:9@sha256:00", Cause.IMAGE),
        ("pull access denied for app, repository does not exist", Cause.IMAGE),
        (
            'failed to create shim task: OCI runtime create failed: exec: "/app": stat /app: no such file or directory',
            Cause.IMAGE,
        ),
        ('OCI runtime create failed: exec: "run": executable file not found in $PATH', Cause.IMAGE),
        ("exec /app: exec format error", Cause.IMAGE),
        ("starting container failed: Address already in use", Cause.PLATFORM),
        (
            "driver failed programming external connectivity: Bind for :::80 failed: port is already allocated",
            Cause.PLATFORM,
        ),
        ("No such network: sznwebgateway", Cause.PLATFORM),
        ("network abc not found", Cause.PLATFORM),
        ("failed to create shim task: context deadline exceeded", Cause.PLATFORM),
        ("write /var/lib/docker/tmp: no space left on device", Cause.PLATFORM),
        ("error while mounting volume '/data': VolumeDriver.Mount: gone", Cause.PLATFORM),
        ("unable to get secret from secret store: secret x not found", Cause.PLATFORM),
        ("failed to start shim: containerd is away", Cause.PLATFORM),
        ("something that nobody has seen before", Cause.UNKNOWN),
        ("", Cause.UNKNOWN),
    ],
)
def test_a_text_says_who_is_to_blame(error: str, cause: Cause) -> None:
    """What the container did by itself is the image's fault; what was done to it is not."""
    assert cause_of_text(error) is cause


def test_an_end_without_an_error_is_the_images() -> None:
    """A container that finishes ended by itself; a task whose node is gone did not."""
    assert cause_of(task(WEB, state="complete")) is Cause.IMAGE
    assert cause_of(task(WEB, state="orphaned")) is Cause.PLATFORM


def test_the_image_is_to_blame_as_soon_as_one_task_says_so() -> None:
    """Of several tasks, one that ended by itself outweighs those that were killed; without any nobody knows."""
    killed = task(WEB, state="failed", error="task: non-zero exit (137)")
    ended = task(WEB, state="failed", error="task: non-zero exit (1)")
    odd = task(WEB, state="failed", error="odd")
    assert common_cause([killed, ended, odd]) is Cause.IMAGE
    assert common_cause([odd, killed]) is Cause.PLATFORM
    assert common_cause([]) is Cause.UNKNOWN
