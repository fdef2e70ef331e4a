"""When to try again, as functions of numbers."""

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0


def next_delay(
    last: float, *, up_for: float = 0.0, first: float = FIRST_DELAY, longest: float = LONGEST_DELAY
) -> float:
    """Seconds to wait before the next attempt: doubling up to `longest`, and `first` again after a long success.

    `last` is the previous delay (0 before the first), `up_for` how many seconds the last attempt went well.
    """
    if last <= 0 or up_for > longest:
        return first
    return min(last * 2, longest)
