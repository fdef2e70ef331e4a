"""A machine of namespaces with systemd as its first process, and the unit of coreflow on it.

It has its own processes, network and file system, and of this machine only the socket of the test engine.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define
from tests.integration.images import SCRIPT

from coreflow.app.settings import SETTINGS

UNIT = SCRIPT.parents[1] / "deploy" / "coreflow.service"
_SOCKET = "/srv/docker.sock"
_BOOT = r"""
root=$1 socket=$2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys" 2>/dev/null || mount --rbind /sys "$root/sys"
if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then
  mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
else
  mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
  mkdir "$root/sys/fs/cgroup/systemd"
  mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
fi
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
  : >"$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount --bind "$socket" "$root/srv/docker.sock"
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" /lib/systemd/systemd
"""
_NAMESPACES = ("--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup")
_NEEDLESS = ("getty@tty1", "console-getty", "systemd-networkd-wait-online", "systemd-logind")


@define
class Machine:
    """The machine, while it is on."""

    init: int

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on it."""
        enter = ["nsenter", "--target", str(self.init), "--root", "--wd", *_NAMESPACES]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=200, check=False)

    def does(self, *command: str) -> str:
        """Run a command that must succeed; its output."""
        done = self.run(*command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def shows(self, property_: str) -> str:
        """A property of the unit."""
        return self.does("systemctl", "show", "coreflow", "--property", property_, "--value").strip()

    def log(self) -> str:
        """What the unit has written."""
        return self.does("journalctl", "--unit", "coreflow", "--output", "cat", "--no-pager")


@contextmanager
def booted(root: Path, engine: str, cluster: str, **settings: str) -> Iterator[Machine]:
    """Install coreflow on a machine as the docs say, and switch it on; off in the end."""
    socket = engine.removeprefix("unix://")
    _install(root, Path(socket).stat().st_gid, cluster, settings)
    process = subprocess.Popen(
        ["unshare", *_NAMESPACES, "--fork", "--kill-child", "bash", "-ec", _BOOT, "boot", str(root), socket],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        machine = Machine(_child_of(process.pid))
        deadline = time.monotonic() + 120
        while machine.run("systemctl", "is-system-running", "--wait").stdout.strip() != "running":
            assert process.poll() is None, "systemd has ended"
            assert time.monotonic() < deadline, machine.run("systemctl", "--failed").stdout
            time.sleep(0.2)
        yield machine
    finally:
        process.kill()
        process.wait()


def _install(root: Path, group: int, cluster: str, settings: dict[str, str]) -> None:
    with (root / "etc/group").open("a") as groups:
        groups.write(f"docker:x:{group}:\n")
    folder = root / "etc/coreflow"
    folder.mkdir(mode=0o750)
    (folder / "cluster.yaml").write_text(cluster)
    (folder / "cluster.yaml").chmod(0o640)
    for path in (folder, folder / "cluster.yaml"):
        os.chown(path, 0, group)
    assert settings.keys() <= {setting.name for setting in SETTINGS}
    lines = {
        "CLOUDLY_URL": "file:///etc/coreflow/cluster.yaml",
        "DOCKER_HOST": f"unix://{_SOCKET}",
        **settings,
    }
    (folder / "coreflow.env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    (folder / "coreflow.env").chmod(0o600)
    units = root / "etc/systemd/system"
    (units / "coreflow.service").write_text(UNIT.read_text())
    for needless in _NEEDLESS:
        link = units / f"{needless}.service"
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    (root / _SOCKET.lstrip("/")).touch()


def _child_of(pid: int) -> int:
    """The process that becomes systemd: the only child of `unshare`."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + 20
    while not (found := children.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(found[0])
