"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from supir.service.engine import Engine
from supir.service.stored_job import STATES

_JOB_SECONDS = (0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """What is counted, or looked up when it is asked for, in a registry of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._registry = engine, (registry := CollectorRegistry())
        self._requests = Counter("supir_requests", "answered", ["method", "route", "status"], registry=registry)
        self._request_seconds = Histogram(
            "supir_request_seconds", "until the answer was sent", ["route"], registry=registry
        )
        self._ended = Counter("supir_jobs_ended", "by what they ended in", ["state"], registry=registry)
        self._seconds = Histogram(
            "supir_job_seconds", "at work, of jobs that were done", buckets=_JOB_SECONDS, registry=registry
        )
        self._jobs = Gauge("supir_jobs", "that the service remembers, by state", ["state"], registry=registry)
        ready = Gauge("supir_workers_ready", "workers with open weights", registry=registry)
        ready.set_function(lambda: engine.num_ready)
        room = Gauge("supir_room", "1 while new jobs are taken", registry=registry)
        room.set_function(lambda: engine.room.look() is None)
        Gauge("supir_queue_limit", "jobs that may be queued or running", registry=registry).set(engine.max_queued)
        engine.on_end = self._job

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is a template, so that there are few."""
        self._requests.labels(method if method in ("GET", "POST", "DELETE") else "other", route, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it, in the text format."""
        counts = self._engine.store.counts()
        for state in STATES:
            self._jobs.labels(state).set(counts[state])
        return generate_latest(self._registry)

    def _job(self, state: str, seconds: float) -> None:
        if state == "queued":
            return
        self._ended.labels(state).inc()
        if state == "done":
            self._seconds.observe(seconds)
