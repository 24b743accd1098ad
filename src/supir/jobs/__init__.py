"""Many pictures, each made once, whatever happens in between.

    find, manifest -> plan -> run_batch: skip what is done -> work in a pool of workers -> log -> report

`run_batch` is the way in; `supir batch` only shows what it yields. Nothing heavy is imported here.
"""

from supir.jobs.batch import run_batch
from supir.jobs.job import Job, Outcome
from supir.jobs.model import Model
from supir.pool import Processes, Serial
