"""Secrets of this process: its own tokens, what the records hold, and what Corestore gave."""

from collections.abc import Iterable, Mapping

from attrs import evolve

from coreflow.domain.records.confidential import known_in
from coreflow.domain.records.models import Records
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, TEXT_LIMIT, Redactor
from coreflow.domain.swarm.observed import Observed, ObservedService, ObservedTask

_KEPT = 10_000
"""Texts whose redaction is remembered: the same are seen in every pass."""


class Confidential:
    """Grows as the process learns; `redact` is what everybody has who gets texts of peers."""

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        self._own = Redactor(secret for secret in secrets if secret)
        self._records: Records | None = None
        self._of_records = NOTHING_KNOWN
        self._values: dict[str, Mapping[str, str]] = {}
        self._known = self._own
        self._redacted: dict[tuple[str, int, bool], str] = {}

    def redact(self, text: str, limit: int = TEXT_LIMIT, /) -> str:
        """Return what may be told of a text. See `Redactor.redact`."""
        return self._remembered(text, limit, ours=False)

    def redact_ours(self, text: str, limit: int = TEXT_LIMIT, /) -> str:
        """The same for a text of our own, in which those of peers are redacted already."""
        return self._remembered(text, limit, ours=True)

    def _remembered(self, text: str, limit: int, *, ours: bool) -> str:
        found = self._redacted.get((text, limit, ours))
        if found is None:
            if len(self._redacted) >= _KEPT:
                self._redacted.clear()
            found = self._redacted[text, limit, ours] = self._known.redact(text, limit, ours=ours)
        return found

    def learn(self, records: Records) -> None:
        """From now on these are the records."""
        if records is not self._records:
            self._records, self._of_records = records, known_in(records)
            self._combine()

    def give(self, binding: str, values: Mapping[str, str]) -> None:
        """A binding has these values."""
        if self._values.get(binding) != values:
            self._values[binding] = values
            self._combine()

    def _combine(self) -> None:
        given = Redactor(values=[pair for values in self._values.values() for pair in values.items()])
        self._known = self._own | self._of_records | given
        self._redacted.clear()

    def observed(self, observed: Observed) -> Observed:
        """Return what was seen, perhaps before it was known what must not be told of it."""
        services, tasks = self.seen(observed.services, observed.tasks)
        return evolve(observed, services=services, tasks=tasks)

    def seen(
        self, services: tuple[ObservedService, ...], tasks: tuple[ObservedTask, ...]
    ) -> tuple[tuple[ObservedService, ...], tuple[ObservedTask, ...]]:
        """The same for services and tasks."""
        return tuple(map(self._service, services)), tuple(map(self._task, tasks))

    def _service(self, service: ObservedService) -> ObservedService:
        text = service.update_message
        told = self.redact(text) if text else text
        return service if told == text else evolve(service, update_message=told)

    def _task(self, task: ObservedTask) -> ObservedTask:
        error = self.redact(task.error) if task.error else ""
        message = self.redact(task.message) if task.message else ""
        if (error, message) == (task.error, task.message):
            return task
        return evolve(task, error=error, message=message)
