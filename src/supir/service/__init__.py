"""Restoration as a service, without HTTP: a queue that outlives the process, workers, and what clients may do.

    validation: upload, options -> Submission -> Store (SQLite) -> WorkerThreads -> Store

A worker thread keeps one worker, which is a process of this machine or an actor on a Ray cluster.

`Engine` is the way in; what serves HTTP, or a page, stands on it. Nothing heavy is imported here.
"""
