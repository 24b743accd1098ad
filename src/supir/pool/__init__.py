"""Workers: in this process, in processes of this machine, or on Ray. What they work on is not known here.

workers.py      what a worker is told and answers; `Serial`, who is this process; calls as tasks; `WorkerPool`: tasks
                handed to workers of any kind, and what follows when one dies
processes.py    `Processes` of this machine, which end with it
on_ray.py       `OnRay`: actors of a cluster; the one file that imports ray
"""

from supir.pool.processes import Processes
from supir.pool.workers import (
    MAX_TRIES,
    Answer,
    Calling,
    Done,
    EmptyClusterWarning,
    Event,
    Failed,
    Opening,
    Report,
    Runner,
    Serial,
    Worker,
    WorkerPool,
)
