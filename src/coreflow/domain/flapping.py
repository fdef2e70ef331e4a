"""Flapping: a subject that keeps changing is logged when that begins, then as counts, and once when it is over.

A subject has a state: empty while all is well, else a string that says what is wrong. Each change of state is reported,
until there are too many within half an hour. From then on only counts are reported, at growing intervals, until nothing has
changed for a quarter of an hour. So no subject costs more than a dozen lines an hour, and every problem that begins also ends.
"""

from collections.abc import Mapping
from typing import Literal

from attrs import Factory, evolve, frozen

from .pacing import next_delay

WITHIN_SECONDS = 1800.0
QUIET_SECONDS = WITHIN_SECONDS / 2
"""Without a change for so long, a subject no longer flaps."""
BEGINNING, CHANGE, LIMIT = 3, 1, 9
"""The weights of a problem that begins and of one that becomes another, and how much within half an hour is flapping:
three beginnings, say."""
FIRST_COUNT, LONGEST_COUNT = 600.0, 1200.0
"""Seconds between two counts."""

What = Literal["begins", "changes", "ends", "flaps", "still flaps", "is calm"]
FLAPPING_EVENTS: Mapping[What, str] = {
    "flaps": "flapping",
    "still flaps": "still flapping",
    "is calm": "no longer flapping",
}
"""What lines of the log call it."""


@frozen(kw_only=True)
class News:
    """Something to tell of a subject."""

    subject: str
    what: What
    state: str
    """What is wrong with it now; empty where nothing is."""
    was: str = ""
    """What was wrong before."""
    times: int = 0
    """How often it has begun or changed since it began to flap, or in the half hour that made it flap."""
    seconds: float = 0.0
    """How long it was wrong, or how long it has flapped."""


@frozen(kw_only=True)
class _Course:
    """The recent past of one subject."""

    state: str = ""
    last: str = ""
    """The last thing that was wrong."""
    since: float = 0.0
    """Since when it is well, or is not."""
    changed: float = 0.0
    weighed: tuple[tuple[float, int], ...] = ()
    """When something began or changed, and what that weighs."""
    flaps_since: float | None = None
    times: int = 0
    gap: float = 0.0
    told: float = 0.0
    """When the last count was told."""

    @property
    def due(self) -> float:
        """Return when something is to be told of one that flaps although nothing happens."""
        return min(self.told + self.gap, self.changed + QUIET_SECONDS)

    def ticked(self, subject: str, now: float) -> tuple["_Course", News | None]:
        """Return it as it is by now, and what is to be told of that."""
        if self.flaps_since is None or now < self.due:
            return self, None
        seconds = now - self.flaps_since
        news = News(
            subject=subject,
            what="still flaps",
            state=self.state,
            was=self.last,
            times=self.times,
            seconds=seconds,
        )
        if now >= self.changed + QUIET_SECONDS:  # as `due` has it: the difference may be rounded to less
            return evolve(self, flaps_since=None, times=0, weighed=()), evolve(news, what="is calm")
        gap = next_delay(self.gap, first=FIRST_COUNT, longest=LONGEST_COUNT)
        return evolve(self, told=now, gap=gap), news

    def become(self, subject: str, state: str, now: float) -> tuple["_Course", News | None]:
        """Return it with another state, and what is to be told of that."""
        if state == self.state:
            return self, None
        seconds, was = now - self.since, self.state
        since = now if not state or not was else self.since
        course = evolve(self, state=state, since=since, changed=now, last=state or was)
        if not state:
            ends = News(subject=subject, what="ends", state="", was=was, seconds=seconds)
            return course, None if self.flaps_since is not None else ends
        recent = tuple(one for one in self.weighed if now - one[0] < WITHIN_SECONDS)
        course = evolve(course, weighed=(*recent, (now, CHANGE if was else BEGINNING)))
        if self.flaps_since is not None:
            return evolve(course, weighed=(), times=self.times + 1), None
        if sum(weight for _, weight in course.weighed) < LIMIT:
            what: What = "changes" if was else "begins"
            return course, News(
                subject=subject, what=what, state=state, was=was, seconds=seconds if was else 0
            )
        times, first = len(course.weighed), course.weighed[0][0]
        flaps = evolve(course, weighed=(), flaps_since=now, times=times, gap=FIRST_COUNT, told=now)
        return flaps, News(
            subject=subject, what="flaps", state=state, was=was, times=times, seconds=now - first
        )

    def is_over(self, now: float) -> bool:
        """Return whether nothing of it matters any more."""
        return not self.state and self.flaps_since is None and now - self.changed >= WITHIN_SECONDS


@frozen(kw_only=True)
class Flapping:
    """The recent past of all subjects."""

    courses: Mapping[str, _Course] = Factory(dict)
    restless: frozenset[str] = frozenset()
    """Those of which only counts are told."""
    tidied: float = 0.0

    def state(self, subject: str) -> str:
        """Return what is wrong with a subject; empty where nothing is."""
        course = self.courses.get(subject)
        return "" if course is None else course.state

    def is_flapping(self, subject: str) -> bool:
        """Return whether only counts are told of it."""
        return subject in self.restless

    @property
    def due(self) -> float | None:
        """Return when something is to be told although nothing happens."""
        return min((self.courses[name].due for name in self.restless), default=None)

    def after(self, wrong: Mapping[str, str], now: float) -> tuple["Flapping", tuple[News, ...]]:
        """Return it with what is wrong by now, and what is to be told; what is not named is well. Any clock in seconds."""
        well = {name: "" for name in self.courses if name not in wrong}
        return self._with({**wrong, **well}, now)

    def become(self, subject: str, state: str, now: float) -> tuple["Flapping", tuple[News, ...]]:
        """Return it with another state of one subject."""
        return self._with({subject: state}, now)

    def at(self, now: float) -> tuple["Flapping", tuple[News, ...]]:
        """Return it as it is by now, where nothing has happened."""
        return self._with({}, now)

    def _with(self, states: Mapping[str, str], now: float) -> tuple["Flapping", tuple[News, ...]]:
        counting = {name: self.courses[name].state for name in sorted(self.restless) if name not in states}
        changed: dict[str, _Course] = {}
        news: list[News] = []
        for name, state in (counting | {**states}).items():
            course = self.courses.get(name)
            if course is None:
                course = _Course(since=now, changed=now)
            if course.state == state and name not in self.restless:
                continue
            course, counted = course.ticked(name, now)
            changed[name], told = course.become(name, state, now)
            news += [one for one in (counted, told) if one is not None]
        return (self._moved(changed, now) if changed else self), tuple(news)

    def _moved(self, changed: Mapping[str, _Course], now: float) -> "Flapping":
        courses = {**self.courses, **changed}
        tidied = self.tidied
        if now - tidied >= WITHIN_SECONDS:
            courses = {name: course for name, course in courses.items() if not course.is_over(now)}
            tidied = now
        restless = {name for name, course in changed.items() if course.flaps_since is not None}
        return Flapping(courses=courses, restless=(self.restless - changed.keys()) | restless, tidied=tidied)


CALM = Flapping()
