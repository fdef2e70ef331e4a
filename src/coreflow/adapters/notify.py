"""Telling a service manager how the daemon is: systemd's notification protocol, one datagram for each message.

There is nothing to wait for and no answer. A manager that does not listen costs nothing.
"""

import os
import socket
from collections.abc import Mapping

import structlog
from attrs import frozen

log = structlog.get_logger()

_LONGEST = 200
"""Characters of a status."""


@frozen
class Manager:
    """The service manager that started this process, if one wants to be told."""

    address: str = ""
    watchdog_seconds: float | None = None
    """A process that says nothing for so long is started anew; None where nobody watches."""

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int | None = None) -> "Manager":
        """The manager that the variables of a process name: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        watched, period = environ.get("WATCHDOG_PID", ""), environ.get("WATCHDOG_USEC", "")
        is_watched = period.isdecimal() and int(period) > 0
        if watched and watched != str(os.getpid() if pid is None else pid):
            is_watched = False  # it was meant for another process
        return cls(address, int(period) / 1_000_000 if is_watched else None)

    def ready(self, status: str) -> None:
        """The start is over."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, status: str) -> None:
        """Set what a person sees in `systemctl status`."""
        self._send(f"STATUS={_line(status)}")

    def alive(self) -> None:
        """The watchdog need not bite."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def _send(self, *fields: str) -> None:
        if not self.address:
            return
        where = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)  # noqa: FBT003 - the method's only argument
                sender.sendto("\n".join(fields).encode(), where)
        except OSError as exc:
            log.debug("the service manager is not told", reason=exc.strerror or type(exc).__name__)


def _line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
