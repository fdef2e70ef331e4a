"""Calls of an engine that are counted."""

from contextlib import suppress

import pytest

from coreflow.adapters.engine.protocol import EngineError, EngineTimeout
from coreflow.adapters.engine.timed import path_without_names, timed
from coreflow.app.engine_calls import EngineCalls


@pytest.mark.parametrize(
    ("path", "without"),
    [
        ("/services", "/services"),
        ("/services/create", "/services/create"),
        ("/services/abc", "/services/{id}"),
        ("/services/abc/update", "/services/{id}/update"),
        ("/distribution/registry.example.com/team/app:1/json", "/distribution/{id}/json"),
        ("/images/json", "/images/json"),
    ],
)
def test_paths_have_no_names(path: str, without: str) -> None:
    """A label with names in it would be another series for each of them."""
    assert path_without_names(path) == without


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, "200"), (EngineError(409, "update out of sequence"), "409"), (EngineTimeout("slow"), "none")],
)
def test_calls_are_counted_by_how_they_were_answered(error: Exception | None, code: str) -> None:
    calls = EngineCalls()
    with suppress(EngineError, EngineTimeout), timed(calls.called, "POST", "/services/x/update"):
        if error is not None:
            raise error
    assert calls.counts == {("POST", "/services/{id}/update", code): 1}
    assert sum(calls.seconds["POST", "/services/{id}/update"].counts) == 1


def test_what_is_cancelled_is_not_counted() -> None:
    calls = EngineCalls()
    with pytest.raises(KeyboardInterrupt), timed(calls.called, "GET", "/tasks"):
        raise KeyboardInterrupt
    assert not calls.counts
    with timed(None, "GET", "/tasks"):
        pass
