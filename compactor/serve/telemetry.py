"""What a machine watches: numbers about the store and the server, as Prometheus reads them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from compactor.hub.state import Lag, lags
from compactor.serve.hub import Hub
from compactor.status import ProjectStatus, status
from compactor.work import Turn
from eventlog.fs import LOCAL

_KEPT_S = 5.0
_GAUGES = (
    ("eventlog_writers", "Writers that are known", "writers"),
    ("eventlog_writers_live", "Writers whose process lives", "writers_live"),
    ("eventlog_pending_bytes", "Bytes of segments that are not folded yet", "pending_bytes"),
    ("eventlog_snapshot_version", "Version of the newest snapshot", "version"),
    ("eventlog_snapshot_bytes", "Size of the snapshot's files", "snapshot_bytes"),
    ("eventlog_segment_bytes", "Size of the segments", "segment_bytes"),
    ("eventlog_records_folded", "Records in the snapshot", "records"),
    ("eventlog_gap_records", "Records known to be missing", "gaps"),
    ("eventlog_dropped_records", "Records that writers could not keep", "dropped"),
    ("eventlog_duplicate_records", "Records met twice and left out", "duplicates"),
    ("eventlog_quarantined_ranges", "Damaged byte ranges set aside", "quarantined"),
)
_OF_BUCKET = (
    ("eventlog_bucket_lag_seconds", "Since the oldest snapshot that the bucket lacks", "lag_s"),
    ("eventlog_bucket_lag_versions", "Snapshots that the bucket lacks", "behind_versions"),
    ("eventlog_bucket_published_age_seconds", "Since the last publish", "published_age_s"),
)
_COUNTERS = (
    ("eventlog_ingest_records", "Records taken over HTTP", "records"),
    ("eventlog_ingest_repeats", "Entries that had been received before", "repeats"),
    ("eventlog_ingest_refused", "Entries that could not be kept and will be sent again", "refused"),
)


class Telemetry(Collector):
    """The numbers of one server. Thread-safe; the store is looked at every five seconds at most."""

    def __init__(self, hub: Hub) -> None:
        """Take what is served."""
        self._hub = hub
        self._lock = threading.Lock()
        self._known: list[ProjectStatus] = []
        self._lags: dict[str, list[Lag]] = {}
        self._until = 0.0
        self._registry = CollectorRegistry()
        self._turns = Histogram(
            "eventlog_turn_seconds", "Time of the turns of the compactor that did something", registry=self._registry
        )
        self._registry.register(self)

    def note(self, turn: Turn) -> None:
        """Take in a turn of the compactor."""
        self._turns.observe(turn.seconds)

    def text(self) -> bytes:
        """Return all numbers in Prometheus' text form.

        Raises:
            OSError: the store cannot be read.
            EventLogError: likewise.
        """
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Say nothing beforehand: what there is depends on the store."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._known = status(LOCAL, self._hub.root)
                self._lags = {item.project: lags(LOCAL, self._hub.root, item.project) for item in self._known}
                self._until = time.monotonic() + _KEPT_S
            known, behind = list(self._known), dict(self._lags)
        for name, text, field in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["project"])
            for item in known:
                gauge.add_metric([item.project], float(getattr(item, field)))
            yield gauge
        lag = GaugeMetricFamily("eventlog_snapshot_age_seconds", "Since the newest snapshot", labels=["project"])
        for item in known:
            if item.snapshot_age_s is not None:
                lag.add_metric([item.project], item.snapshot_age_s)
        yield lag
        yield from _of_buckets(behind)
        yield from self._of_restore()
        for name, text, field in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=["project"])
            for intake in self._hub.intakes():
                counter.add_metric([intake.project], float(getattr(intake.totals, field)))
            yield counter

    def _of_restore(self) -> Iterator[Metric]:
        if self._hub.config.bucket:
            text = "Whether the store is still being restored from its bucket"
            yield GaugeMetricFamily("eventlog_restoring", text, float(self._hub.is_restoring()))
        held = self._hub.held
        yield GaugeMetricFamily("eventlog_held_calls", "Calls that wait until the store is restored", len(held.ids()))
        yield GaugeMetricFamily("eventlog_held_refused", "Such calls that could not be done", held.refused())


def _of_buckets(behind: dict[str, list[Lag]]) -> Iterator[Metric]:
    for name, text, field in _OF_BUCKET:
        gauge = GaugeMetricFamily(name, text, labels=["project", "bucket"])
        for project, items in behind.items():
            for item in items:
                if (value := getattr(item, field)) is not None:
                    gauge.add_metric([project, item.bucket], float(value))
        yield gauge
    failing = GaugeMetricFamily("eventlog_bucket_failing", "Whether publishing fails now", labels=["project", "bucket"])
    for project, items in behind.items():
        for item in items:
            failing.add_metric([project, item.bucket], float(bool(item.error)))
    yield failing
