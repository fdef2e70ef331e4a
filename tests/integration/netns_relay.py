"""Carries connections into the network namespace that it is started in: `nsenter -t PID -n python netns_relay.py SOCKET`.

Whoever connects to the unix socket writes `ADDRESS PORT SECONDS` in one line, and reads `ok`, or why not, in one line;
after `ok` it talks to that address. Nothing is tried twice, and SECONDS is how long connecting may take. The relay says
`ready` on its standard output when it listens, and ends with its standard input. It needs nothing but Python.
"""

import asyncio
import os
import sys
from contextlib import suppress


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """One direction, up to its end, which is passed on too. What breaks ends both."""
    with suppress(OSError):
        while chunk := await source.read(65536):
            target.write(chunk)
            await target.drain()
        target.write_eof()
        return
    target.transport.abort()


async def _serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    """One connection."""
    line = (await client.readline()).decode()
    if not line.endswith("\n"):
        to_client.close()
        return
    address, port, seconds = line.split()
    try:
        opening = asyncio.open_connection(address, int(port))
        server, to_server = await asyncio.wait_for(opening, float(seconds))
    except (OSError, TimeoutError) as error:
        reason = os.strerror(error.errno) if error.errno else f"no connection within {seconds} s"
        to_client.write(f"{address}:{port}: {reason}\n".encode())
        to_client.close()
        return
    to_client.write(b"ok\n")
    await asyncio.gather(_pass_on(client, to_server), _pass_on(server, to_client))
    to_server.close()
    to_client.close()


async def main(path: str) -> None:
    """Serve until the standard input ends."""
    async with await asyncio.start_unix_server(_serve, path):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
