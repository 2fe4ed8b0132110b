"""Buffered metrics say what the client library's own say."""

import random

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from service.telemetry.buffered import BufferedCounter, BufferedHistogram, flush
from service.telemetry.metrics import Metrics

BOUNDS = (0.0, 0.1, 0.5, 1.0)


def text(registry: CollectorRegistry) -> list[bytes]:
    return [line for line in generate_latest(registry).splitlines() if b"_created" not in line]


def test_histograms_are_the_same() -> None:
    generator = random.Random(0)
    amounts = [*BOUNDS, *(generator.random() * 2 for _ in range(10_000))]
    registries = CollectorRegistry(), CollectorRegistry()
    for kind, registry in zip((Histogram, BufferedHistogram), registries, strict=True):
        histogram = kind("seconds", "Of a stage.", ["stage"], buckets=BOUNDS, registry=registry)
        for amount in amounts:
            histogram.labels("encode").observe(round(amount, 3))
        histogram.labels("idle")
    expected, given = map(text, registries)
    is_sum = [line.startswith(b"seconds_sum") for line in expected]

    assert [each for each, skip in zip(given, is_sum, strict=True) if not skip] == [
        each for each, skip in zip(expected, is_sum, strict=True) if not skip
    ]
    total = registries[1].get_sample_value("seconds_sum", {"stage": "encode"})
    assert total is not None
    assert abs(total - sum(round(amount, 3) for amount in amounts)) < 1e-6


def test_counters_are_the_same() -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    for kind, registry in zip((Counter, BufferedCounter), registries, strict=True):
        counter = kind("answers", "By source.", ["source"], registry=registry)
        for amount in (1, 2.5, 4):
            counter.labels("posted").inc(amount)
            assert registry.get_sample_value("answers_total", {"source": "posted"})
        counter.labels("stored").inc()
    assert text(registries[0]) == text(registries[1])


def test_what_was_noted_is_flushed_for_other_workers_too() -> None:
    metrics = Metrics()
    metrics.count_request("/recommend", 200)
    metrics.total_s.observe(0.001)
    metrics.poll()
    child = metrics.requests.labels("/recommend", 200)
    assert child._value.get() == 1
    assert metrics.total_s._sum.get() == 0.001


def test_a_metric_without_labels_is_flushed() -> None:
    counter = BufferedCounter("answers", "All.", registry=None)
    counter.inc(3)
    flush(counter)
    assert counter._value.get() == 3
