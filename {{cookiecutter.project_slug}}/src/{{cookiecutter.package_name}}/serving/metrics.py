"""What Prometheus reads at /metrics: requests, predictions, the store and the model."""

from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    Summary,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily

from ..types import Answers
from .predictor import Champion
from .store import Store

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CONFIDENCE = tuple(i / 10 for i in range(1, 11))


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self, store: Store, in_flight: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "http_requests", "Answered requests", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "http_request_duration_seconds",
            "Time to answer",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self.predictions = Counter(
            "model_predictions",
            "Predicted labels; of values, the tenth of the reference's values in which they lie",
            ["version", "label"],
            registry=registry,
        )
        self.abstentions = Counter(
            "model_abstentions", "Predictions with abstain", ["version"], registry=registry
        )
        self.confidence = Histogram(
            "model_confidence",
            "Probability of the predicted label",
            ["version"],
            buckets=CONFIDENCE,
            registry=registry,
        )
        self.deviation = Summary(
            "model_deviation",
            "Predicted standard deviation of a value",
            ["version"],
            registry=registry,
        )
        self.feedback = Counter("model_feedback", "Feedback received", ["label"], registry=registry)
        self.model = Gauge(
            "model_info",
            "The model that answers",
            ["name", "version", "identity", "candidate"],
            registry=registry,
        )
        Gauge(
            "http_requests_in_flight", "Requests being worked on", registry=registry
        ).set_function(in_flight)
        Gauge("store_queue_rows", "Rows waiting to be stored", registry=registry).set_function(
            lambda: store.depth
        )
        registry.register(_Dropped(store))

    def answered(self, path: str, status: int, seconds: float) -> None:
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def predicted(self, champion: Champion, answers: Answers) -> None:
        version, bundle = champion.version, champion.bundle
        for name in bundle.kind.groups(answers, bundle.card.labels, bundle.reference):
            self.predictions.labels(version, name).inc()
        size = bundle.kind.SURENESS
        observe = getattr(self, size).labels(version).observe
        for number in getattr(answers, size):
            observe(number)
        self.abstentions.labels(version).inc(int(answers.abstain.sum()))

    def loaded(self, champion: Champion) -> None:
        """Names the model that answers from now on."""
        card, identity = champion.bundle.card, champion.bundle.identity
        self.model.clear()
        self.model.labels(card.name, champion.version, identity, card.candidate).set(1)

    def text(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return generate_latest(self.registry)


class _Dropped:
    """The store counts what it drops; Prometheus reads that number."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "store_dropped", "Predictions that could not be stored", value=self.store.dropped
        )
