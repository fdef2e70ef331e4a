"""`coreflow` and `python -m coreflow`: what has to be in order before anything large is imported."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

_SHOW_CURSOR = b"\x1b[?25h"


def main() -> None:
    """Run the command line."""
    _open_closed_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
            signal.signal(number, _stop)
    from coreflow.app.cli import main as command

    command()


def _open_closed_streams() -> None:
    """Give the standard streams that were closed a file that fails: no socket must get the number of one."""
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for as long as the process lives


def _stop(number: int, _: FrameType | None) -> None:
    """End at once: nothing has been begun, or this is the second signal. A daemon is asked to stop this way."""
    is_daemon = next((word for word in sys.argv[1:] if not word.startswith("-")), "") == "run"
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, _SHOW_CURSOR)
        if not is_daemon:
            os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(0 if is_daemon else 128 + number)


if __name__ == "__main__":
    main()
