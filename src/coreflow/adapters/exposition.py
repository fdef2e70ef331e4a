"""Metrics in the text form that Prometheus reads."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from coreflow.domain.measures import Metric

from .net import Page

PREFIX = "coreflow_"


class _Metrics(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Family]:
        for metric in self._read():
            yield _family(metric)


def _family(metric: Metric) -> Family:
    name = f"{PREFIX}{metric.name}"
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.meaning, labels=metric.labels)
        for labels, one in metric.histograms.items():
            histogram.add_metric(labels, one.buckets(), one.total)
        return histogram
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(name, metric.meaning, labels=metric.labels)
    for labels, value in metric.values.items():
        family.add_metric(labels, value)
    return family


def exposition(read: Callable[[], Iterable[Metric]]) -> Page:
    """The metrics as text, with those of the process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Metrics(read))
    ProcessCollector(registry=registry)
    return Page(generate_latest(registry).decode(), CONTENT_TYPE_LATEST)
