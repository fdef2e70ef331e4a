"""The clock beside `domain.flapping`: tells of subjects that are well or not, as time goes on."""

from collections.abc import Callable, Mapping

import trio

from coreflow.domain.flapping import CALM, Flapping, News


class Episodes:
    """Hands news to `tell` as they come; while `run` runs, also those that only need time to pass."""

    def __init__(self, tell: Callable[[News], None]) -> None:
        self._tell = tell
        self._flapping: Flapping = CALM
        self._changed = trio.Event()

    def state(self, subject: str) -> str:
        """Return what is wrong with a subject; empty where nothing is."""
        return self._flapping.state(subject)

    def is_flapping(self, subject: str) -> bool:
        """Return whether only counts are told of it."""
        return self._flapping.is_flapping(subject)

    def become(self, subject: str, state: str) -> None:
        """Take another state of one subject."""
        self._take(self._flapping.become(subject, state, trio.current_time()))

    def after(self, wrong: Mapping[str, str]) -> None:
        """Take the states of all subjects; those that are not named are well."""
        self._take(self._flapping.after(wrong, trio.current_time()))

    def forget(self) -> None:
        """Begin anew."""
        self._flapping = CALM

    async def run(self) -> None:
        """Tell what is due, until cancelled."""
        while True:
            due = self._flapping.due
            with trio.move_on_at(float("inf") if due is None else due):
                await self._changed.wait()
            self._changed = trio.Event()
            self._take(self._flapping.at(trio.current_time()), wake=False)

    def _take(self, taken: tuple[Flapping, tuple[News, ...]], *, wake: bool = True) -> None:
        before = self._flapping.due
        self._flapping, news = taken
        if wake and self._flapping.due != before:
            self._changed.set()
        for one in news:
            self._tell(one)
