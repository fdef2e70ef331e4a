"""Measures."""

from coreflow.domain.measures import Histogram


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram(bounds=(1.0, 2.0)).after(1.0).after(1.5).after(99.0)
    assert histogram.buckets() == (("1.0", 1.0), ("2.0", 2.0), ("+Inf", 3.0))
    assert histogram.total == 101.5
    assert Histogram(bounds=(1.0,)).buckets() == (("1.0", 0.0), ("+Inf", 0.0))
