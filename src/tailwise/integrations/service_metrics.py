"""What a service tells Prometheus: how long answers take, and what it flags of which cluster."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts of one service, in a registry of its own.

    Shares are ratios of counters, so that whoever asks chooses over which time: flagged by cluster is
    `rate(tailwise_flagged_total[1h]) / rate(tailwise_samples_total[1h])`, unknown is the part of
    `tailwise_samples_total` with `cluster="unknown"`.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def made(kind: Any, name: str, what: str, *labels: str, **options: Any) -> Any:
            return kind(f"tailwise_{name}", what, labels, registry=self.registry, **options)

        self._seconds = made(Histogram, "request_seconds", "Time to an answer of scores.", "run", buckets=_SECONDS)
        self._requests = made(Counter, "requests", "Requests for scores, by status of the answer.", "run", "status")
        self._samples = made(Counter, "samples", "Samples scored, by nearest cluster.", "run", "cluster")
        self._flagged = made(
            Counter, "flagged", "Samples flagged, by the cluster they are most like.", "run", "cluster"
        )
        self._waiting = made(Gauge, "requests_waiting", "Requests that wait or are worked on.", "run")
        self._renewals = made(Counter, "renewals", "New versions of a run, taken or refused.", "run", "outcome")

    def answered(self, run: str, status: int, seconds: float) -> None:
        """A request for scores of this run was answered."""
        self._requests.labels(run, str(status)).inc()
        self._seconds.labels(run).observe(seconds)

    def scored(self, run: str, samples: Sequence[Mapping[str, Any]]) -> None:
        """Samples of this run were scored, each with its cluster and whether it is flagged."""
        for cluster, count in Tally(_cluster(sample) for sample in samples).items():
            self._samples.labels(run, cluster).inc(count)
            self._flagged.labels(run, cluster).inc(0)  # a share of none is known from the first sample on
        for cluster, count in Tally(_cluster(sample) for sample in samples if sample["flagged"]).items():
            self._flagged.labels(run, cluster).inc(count)

    def waiting(self, run: str, change: int) -> None:
        """So many more requests of this run wait."""
        self._waiting.labels(run).inc(change)

    def renewed(self, run: str, taken: bool) -> None:
        """A new version of this run was taken, or could not be used."""
        self._renewals.labels(run, "taken" if taken else "refused").inc()

    def text(self) -> bytes:
        """All counts in Prometheus' text format."""
        return generate_latest(self.registry)


def _cluster(sample: Mapping[str, Any]) -> str:
    return str(sample.get("cluster", "none"))
