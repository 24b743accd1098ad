"""What a restoration will come to before it is asked for: sizes, and the time that it takes here."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING

from supir.errors import OptionError, SupirError
from supir.jobs.model import Model
from supir.options import RestoreOptions
from supir.options.audit import AuditOptions
from supir.service.http.responses import PlanView
from supir.service.limits import Limits
from supir.service.stored_job import StoredJob
from supir.service.validation import check_auditing, check_work

if TYPE_CHECKING:
    from supir.planner.kept import KeptCosts

_MOST_KEPT = 1000
_HALVINGS = 6
"""Of the range in which the largest scale is looked for."""
_PATIENCE = 1.0
"""Seconds that an upload waits for what is being counted."""
_LEAST_PREVIEW = 384
"""Pixels of a clean preview's longer side below which little is seen of a photo."""


class Estimates:
    """Counts the operations of pictures, and divides them by how many were made a second: by pictures that were
    restored here, or, before there are any, by what is known of this machine (``kept_rate``). Any thread may ask.

    Args:
        model: whose networks; their configurations are read at the first question.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._begun, self._prepared = False, threading.Event()
        self._counted: dict[tuple[str, int, int, RestoreOptions], dict[str, float]] = {}

    def plan(
        self, width: int, height: int, options: RestoreOptions, limits: Limits, done: list[StoredJob],
        audit: AuditOptions | None = None,
    ) -> PlanView:  # fmt: skip
        """Of a picture of ``width`` by ``height`` pixels.

        Args:
            width: of the picture, in pixels.
            height: likewise.
            options: what it is to be restored with.
            limits: of who asks.
            done: results that tell how fast it goes, the newest first.
            audit: how the result is audited; None where it is not.
        """
        from supir.planner.plan import size_on

        refused = None
        try:
            check_work(width, height, options, limits)
            if audit is not None:
                check_auditing(audit, width, height, options.scale)
        except OptionError as error:
            refused = str(error)
        size = size_on(self._costs, options, width, height)
        seconds, measured = (None, False) if refused else self._seconds(width, height, options, done, audit)
        return PlanView(
            width=size.output_width, height=size.output_height, working_width=size.padded_width,
            working_height=size.padded_height, seconds=seconds, measured=measured, refused=refused,
        )  # fmt: skip

    def _seconds(
        self, width: int, height: int, options: RestoreOptions, done: list[StoredJob], audit: AuditOptions | None
    ) -> tuple[float | None, bool]:
        with self._lock:  # one at a time: counting imports torch, and takes a core
            first = {job.source: job for job in done}  # another version of a photo begins with the sampling
            rates = []
            for job in first.values():
                if job.started is None or job.finished is None or job.finished <= job.started:
                    continue
                with suppress(SupirError):  # what one was made with may be gone: a model of ``first``
                    work = self._whole_work(job.width, job.height, job.options, job.audit)
                    rates.append(work / (job.finished - job.started))
            rate = median(rates) if rates else self._rate()
            work = self._whole_work(width, height, options, audit)
            return (None if rate is None else work / rate), bool(rates)

    def prepare(self) -> None:
        """Count, in a thread of its own, what takes seconds the first time: torch is imported, unknown networks traced,
        the machine measured.
        """

        def count() -> None:
            with suppress(SupirError), self._lock:  # a model that cannot be counted is told of where it is opened
                self._work(1000, 1000, self._model.options())
                self._rate()
                self._prepared.set()

        if not self._begun:
            self._begun = True
            threading.Thread(target=count, name="estimates", daemon=True).start()

    def preview_scale(self, width: int, height: int, options: RestoreOptions, seconds: float) -> float:
        """A scale, as large as halving finds and at most that of the options, whose clean preview is made within about
        so many seconds; of a picture of ``width`` by ``height`` pixels. That of the options until `prepare` has
        counted: nobody waits.
        """
        self.prepare()
        if not self._prepared.wait(_PATIENCE):
            return options.scale
        from supir.restoration.work import ENCODING, PREVIEW

        with self._lock:
            rate = self._rate()

            def fits(scale: float) -> bool:
                work = self._work(width, height, options.replace(scale=scale))
                return rate is None or (work[ENCODING] + work[PREVIEW]) / rate <= seconds

            low, high = min(options.scale, max(0.05, _LEAST_PREVIEW / max(width, height))), options.scale
            if fits(high):
                return high
            for _ in range(_HALVINGS):
                middle = (low * high) ** 0.5
                low, high = (middle, high) if fits(middle) else (low, middle)
            return low

    def _whole_work(self, width: int, height: int, options: RestoreOptions, audit: AuditOptions | None) -> float:
        """Operations of a result and its audit, whose witness makes a clean preview and so many versions anew."""
        work = sum(self._work(width, height, options).values())
        if audit is None:
            return work
        from supir.restoration.work import ENCODING, PREVIEW

        witness = self._work(width, height, Model().options(scale=options.scale), self._costs_of_witness)
        return work + witness[ENCODING] + witness[PREVIEW] + audit.seeds * sum(witness.values())

    def _work(
        self, width: int, height: int, options: RestoreOptions, costs: KeptCosts | None = None
    ) -> dict[str, float]:
        costs = costs or self._costs
        key = costs.key, width, height, options.replace(seed=0, prompt="", tile_prompts="")
        if key not in self._counted:
            from supir.planner.plan import work_on

            if len(self._counted) >= _MOST_KEPT:
                self._counted.clear()
            self._counted[key] = work_on(costs, options, width, height, self._model.first_models)
        return self._counted[key]

    @cached_property
    def _costs(self) -> KeptCosts:
        return self._costs_of(self._model)

    @cached_property
    def _costs_of_witness(self) -> KeptCosts:
        return self._costs_of(Model())

    def _costs_of(self, model: Model) -> KeptCosts:
        from supir.planner.kept import KeptCosts
        from supir.weights.device import kind_of
        from supir.weights.model_folder import BUNDLED_MODEL

        return KeptCosts(model.folder or BUNDLED_MODEL, model.networks, kind_of(self._device), quiet=True)

    def _rate(self) -> float | None:
        """Operations a second, as workers reached them last, or as measured; None for a device that is not here."""
        costs = self._costs
        from supir.planner.kept import seen_rate

        return seen_rate(costs.key, self._device) or self._measured

    @cached_property
    def _measured(self) -> float | None:
        costs = self._costs
        from supir.planner.costs import measured_rate
        from supir.weights.device import find_device

        try:
            find_device(self._device)
        except OptionError:
            return None
        return measured_rate(self._device, costs.dtype)

    @property
    def _device(self) -> str:
        from supir.weights.device import best_device

        return self._model.devices[0] if self._model.devices else best_device()
