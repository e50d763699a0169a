"""Buffered metrics show what any other would, a moment later."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from telemetry import metrics
from telemetry.metrics import BufferedCounter, BufferedHistogram

BUCKETS = (0.1, 1, 5)
AMOUNTS = (0.0, 0.05, 0.1, 0.100001, 1, 4.9, 5, 5.1, 1e9)


def rendered(kind: type[Histogram]) -> tuple[CollectorRegistry, Histogram]:
    registry = CollectorRegistry()
    return registry, kind("waited_seconds", "How long.", buckets=BUCKETS, registry=registry)


def test_it_shows_the_same_as_the_librarys_own() -> None:
    ours, buffered = rendered(BufferedHistogram)
    theirs, plain = rendered(Histogram)
    assert isinstance(buffered, BufferedHistogram)
    for _ in range(2):
        for amount in AMOUNTS:
            buffered.observe(amount)
            plain.observe(amount)
        assert generate_latest(ours) != generate_latest(theirs)
        buffered.flush()
        assert generate_latest(ours) == generate_latest(theirs)
    buffered.flush()
    assert generate_latest(ours) == generate_latest(theirs)


def test_one_flush_shows_all_that_was_counted_of_each_label() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    buffered = BufferedCounter("events", "How many.", ["kind"], registry=ours)
    plain = Counter("events", "How many.", ["kind"], registry=theirs)
    for _ in range(2):
        for kind, amount in (("a", 1), ("b", 2.5), ("a", 3)):
            buffered.labels(kind).inc(amount)
            plain.labels(kind).inc(amount)
        assert generate_latest(ours) != generate_latest(theirs)
        metrics.flush()
        assert generate_latest(ours) == generate_latest(theirs)
