"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from supir.service.engine import Engine
from supir.service.stored_job import STATES

_JOB_SECONDS = (0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """What is counted, in a registry of its own."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("supir_requests", "answered", ["method", "route", "status"], registry=self._registry)
        self._request_seconds = Histogram(
            "supir_request_seconds", "until the answer was sent", ["route"], registry=self._registry
        )
        self._ended = Counter("supir_jobs_ended", "by what they ended in", ["state"], registry=self._registry)
        self._seconds = Histogram(
            "supir_job_seconds", "at work, of jobs that were done", buckets=_JOB_SECONDS, registry=self._registry
        )
        self._registry.register(_State(engine))
        engine.on_end = self._job

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is a template, so that there are few."""
        self._requests.labels(method if method in ("GET", "POST", "DELETE") else "other", route, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it, in the text format."""
        return generate_latest(self._registry)

    def _job(self, state: str, seconds: float) -> None:
        if state == "queued":
            return
        self._ended.labels(state).inc()
        if state == "done":
            self._seconds.observe(seconds)


class _State(Collector):
    """Looked up when it is asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        jobs = GaugeMetricFamily("supir_jobs", "that the service remembers, by state", labels=["state"])
        counts = self._engine.store.counts()
        for state in STATES:
            jobs.add_metric([state], counts[state])
        yield jobs
        yield GaugeMetricFamily("supir_workers_ready", "workers with open weights", self._engine.num_ready)
        yield GaugeMetricFamily("supir_room", "1 while new jobs are taken", int(self._engine.room.look() is None))
        yield GaugeMetricFamily("supir_queue_limit", "jobs that may be queued or running", self._engine.max_queued)
