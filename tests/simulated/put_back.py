"""Faults of the past, each put back by its name in the environment, to see that the cases notice: a pytest plugin.

PUT_BACK="float64 on the device" pytest -p simulated.put_back -o python_files='case_*.py' tests/simulated -k streams
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType
from typing import Any

VARIABLE = "PUT_BACK"


@dataclass(frozen=True)
class Fault:
    """Text of a module that is replaced when it is imported, and a case that must fail then."""

    module: str
    right: str
    wrong: str
    case: str


FAULTS = {
    "arithmetic by what the machine has": Fault(
        "supir.weights.device",
        'if kind == "cpu":\n        return torch.float32',
        'if best_device() == "cpu":\n        return torch.float32',
        "case_commands.py::test_restore_runs_there_and_elsewhere_when_told",
    ),
    "float64 on the device": Fault(
        "supir.restoration.color",
        "found.cpu().double()",
        "found.double()",
        "case_pipeline.py::test_a_large_picture_streams[adain]",
    ),
    "words sent to where weights wait": Fault(
        "supir.models.text",
        "self.device or encoder.device",
        "encoder.device",
        "case_commands.py::test_offload_acts_and_changes_no_pixel[restore-sequential-1000000000000-sequential]",
    ),
    "numbers of a step copied to the device": Fault(
        "supir.sampling.sigmas",
        'values.device.type == "cpu" and torch.promote',
        "False and torch.promote",
        "case_offload.py::test_a_step_waits_for_nothing_and_copies_little[{'tile': 64}-3]",
    ),
    "conditions left on the processor": Fault(
        "supir.pipeline",
        "conditions.to(place)",
        "conditions",
        "case_networks.py::test_conditions_from_the_processor_are_moved",
    ),
    "feed-forwards in rows everywhere": Fault(
        "supir.models.unet",
        '("cpu", "meta")',
        '("cpu", "meta", "sim")',
        "case_networks.py::test_feed_forwards_are_in_rows_on_the_processor_alone",
    ),
    "a loss left on the processor": Fault(
        "supir.training.stages.autoencoder",
        "FeatureDistance(Path(options.features)).to(materials.device)",
        "FeatureDistance(Path(options.features))",
        "case_training.py::test_a_stage_learns_there_what_it_learns_here[autoencoder]",
    ),
}


class Faulty(SourceFileLoader):
    """Loads a module with its fault."""

    def __init__(self, name: str, path: str, fault: Fault) -> None:
        super().__init__(name, path)
        self._fault = fault

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname) or ""
        assert source.count(self._fault.right) == 1, f"{fullname} is written otherwise now"
        return compile(source.replace(self._fault.right, self._fault.wrong), self.path, "exec")


class Finder:
    """Finds that module before others do."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == self._fault.module else None
        if spec is not None and spec.origin is not None:
            spec.loader = Faulty(name, spec.origin, self._fault)
        return spec


if VARIABLE in os.environ:
    sys.meta_path.insert(0, Finder(FAULTS[os.environ[VARIABLE]]))
