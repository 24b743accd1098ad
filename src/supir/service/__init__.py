"""Restoration as a service, without HTTP: a queue that outlives the process, workers, and what clients may do.

    receiving: upload, options -> Submission -> Store (SQLite) -> Hands -> Store

A hand keeps one worker, which is a process of this machine or an actor on a Ray cluster.

`Engine` is the way in; what serves HTTP, or a page, stands on it. Nothing heavy is imported here.
"""

from supir.service.engine import Engine
from supir.service.jobs import ACTIVE, STATES, StoredJob, Submission
from supir.service.limits import LOCAL, Client, Limits

__all__ = ["ACTIVE", "LOCAL", "STATES", "Client", "Engine", "Limits", "StoredJob", "Submission"]
