"""Whole processes: how they end."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

DAEMON = """
    import signal
    import trio
    from coreflow.adapters.net import connect_websocket, run, serve_websockets

    async def echo(connection):
        while True:
            await connection.send(await connection.receive())

    async def chat(port):
        async with connect_websocket(f"http://127.0.0.1:{port}") as connection:
            await connection.send("hello")
            await connection.receive()
            print("ready", flush=True)
            await connection.receive()

    async def main():
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_websockets, "127.0.0.1", 0, echo)
            nursery.start_soon(chat, server.port)
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                await anext(signals)
                nursery.cancel_scope.cancel()
        print("stopped", flush=True)

    run(main)
"""

STUCK = """
    import signal, socket, time
    import trio
    from coreflow.adapters.net import connect_websocket, run

    def look_up(*args, **options):
        print("ready", flush=True)
        time.sleep(60)

    socket.getaddrinfo = look_up

    async def main():
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                await anext(signals)
                nursery.cancel_scope.cancel()
        print("stopped", flush=True)

    async def connect():
        async with connect_websocket("http://cloudly.example.com", connect_timeout=60):
            pass

    run(main)
"""

ELSEWHERE = """
    # The main thread takes no signals from here on, so this one has to.
    import signal, threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
"""


def ending(script: str, number: signal.Signals) -> tuple[int, str, str, float]:
    """Run a script until it says that it is ready, send it a signal, and say how and how fast it ended."""
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # `&` in a script has it ignored
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
            time.sleep(0.3)  # until everybody in there waits
            start = time.monotonic()
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
        return process.returncode, out, err, time.monotonic() - start


@pytest.mark.parametrize(
    "script",
    [DAEMON, STUCK, ELSEWHERE + DAEMON],
    ids=["in the middle of a talk", "while a name is looked up", "in another thread"],
)
def test_sigterm_ends_a_process_cleanly(script: str) -> None:
    """A process that is told to stop ends within seconds, without an error and without a word on stderr."""
    code, out, err, seconds = ending(script, signal.SIGTERM)
    assert (code, out, err) == (0, "stopped\n", "")
    assert seconds < 5


@pytest.mark.parametrize("script", [DAEMON, ELSEWHERE + DAEMON], ids=["here", "in another thread"])
def test_ctrl_c_ends_a_process(script: str) -> None:
    """Without anybody who takes the signal, it is a KeyboardInterrupt, after everything was closed."""
    code, out, err, seconds = ending(script, signal.SIGINT)
    assert (code, out) == (-signal.SIGINT, "")
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "Warning" not in err
    assert seconds < 5
