"""Connections that are watched."""

from collections.abc import Callable

from coreflow.adapters.net.peer import Socket


class WatchedSocket:
    """A connection that tells of each text, as soon as it was received and before it is sent."""

    def __init__(
        self,
        socket: Socket,
        *,
        received: Callable[[str], None] = lambda _: None,
        sends: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._socket, self._received, self._sends = socket, received, sends

    @property
    def peer(self) -> str:
        """See `Socket`."""
        return self._socket.peer

    @property
    def arriving(self) -> int:
        """See `Socket`."""
        return self._socket.arriving

    async def send(self, text: str) -> None:
        """See `Socket`."""
        self._sends(text)
        await self._socket.send(text)

    async def receive(self) -> str | bytes:
        """See `Socket`."""
        text = await self._socket.receive()
        self._received(str(text))
        return text
