"""Costs of a model folder that were traced before: its networks are built only for what is not known yet.

What is known of the bundled model comes with it; the rest lies in the user's cache folder, by the configurations that
it was traced from.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from platformdirs import user_cache_path

from supir.files import write_whole
from supir.options import NetworkOptions
from supir.planner.costs import Cost, Costs, Networks, measured_rate, networks_of
from supir.weights.model_folder import BUNDLED_MODEL, dtypes_of, read_model_index
from supir.weights.silence import silence_libraries

FORMAT = 4
"""Of the files: another reads none of these."""
SHIPPED = Path(__file__).parents[1] / "assets" / "costs"


class KeptCosts(Costs):
    """As ``Costs(networks_of(...))``, the arguments of which it takes.

    Args:
        folder, options, device: as ``networks_of`` takes them.
        quiet: the libraries that build networks, which are imported where something is not known, are silenced.

    Raises:
        OptionError, WeightsError: as ``networks_of``.
    """

    def __init__(self, folder: Path, options: NetworkOptions, device: str = "cpu", *, quiet: bool = False) -> None:
        self._folder, self._options, self._device, self._quiet = folder, options, device, quiet
        index = read_model_index(folder, "SupirPipeline")
        self._dtype, self._coder_dtype = dtypes_of(folder, index, options, device)
        held = [FORMAT, str(self._dtype), str(self._coder_dtype), options.quantize]
        configs = sorted(folder.glob("*/config.json"))
        texts = [path.parent.name + path.read_text(encoding="utf-8") for path in configs]
        classes = [entry for name, entry in sorted(index.items()) if isinstance(entry, list)]
        self.key = hashlib.sha256(json.dumps([held, classes, texts]).encode()).hexdigest()[:32]
        self._known = _read(SHIPPED / f"{self.key}.json") or _read(_place() / f"{self.key}.json") or {}

    @cached_property
    def traced(self) -> Costs:
        """What is asked where something is not known."""
        if self._quiet:
            silence_libraries()  # first: they complain while they are imported
        return Costs(networks_of(self._folder, self._options, self._device))

    @cached_property
    def networks(self) -> Networks:  # type: ignore[override]
        """Sizes and shapes of the networks, without their layers."""
        facts = self._of("networks", lambda: _facts(self.traced))
        coder, native = facts["autoencoder"], facts["native"]
        parts: dict[str, Any] = {
            "autoencoder": SimpleNamespace(
                config=SimpleNamespace(block_out_channels=[0] * coder["levels"]),
                halo=coder["halo"],
                degraded_halo=coder["degraded_halo"],
                zooms=coder["zooms"],
                has_detail=coder["has_detail"],
            ),
            "unet": SimpleNamespace(config=SimpleNamespace(sample_size=native)),
            "adaptor": SimpleNamespace(),
        }
        return Networks(components=parts, weights=facts["weights"], largest_layer=facts["largest_layer"])

    @property
    def dtype(self) -> torch.dtype:
        """As ``Costs.dtype``."""
        return self._dtype

    @property
    def coder_dtype(self) -> torch.dtype:
        """As ``Costs.coder_dtype``."""
        return self._coder_dtype

    @property
    def stored(self) -> str | None:
        """As ``Costs.stored``."""
        return None if self._options.quantize == "none" else self._options.quantize

    def encode(self, *of: Any) -> Cost:  # type: ignore[override]
        """As ``Costs.encode``."""
        return Cost(**self._of(f"encode {of}", lambda: asdict(self.traced.encode(*of))))

    def decode(self, *of: Any) -> Cost:  # type: ignore[override]
        """As ``Costs.decode``."""
        return Cost(**self._of(f"decode {of}", lambda: asdict(self.traced.decode(*of))))

    def evaluate(self, *of: Any) -> Cost:  # type: ignore[override]
        """As ``Costs.evaluate``."""
        return Cost(**self._of(f"evaluate {of}", lambda: asdict(self.traced.evaluate(*of))))

    def kept(self, height: int, width: int) -> tuple[int, int]:
        """As ``Costs.kept``."""
        control, deep = self._of(f"kept {height} {width}", lambda: list(self.traced.kept(height, width)))
        return control, deep

    def _of(self, name: str, make: Any) -> Any:
        if name not in self._known:
            self._known[name] = make()
            with suppress(OSError):
                write_whole(_place() / f"{self.key}.json", json.dumps(self._known))
        return self._known[name]


def _facts(costs: Costs) -> dict[str, Any]:
    coder: Any = costs.networks.components["autoencoder"]
    unet: Any = costs.networks.components["unet"]
    halos = {name: getattr(coder, name, None) for name in ("halo", "degraded_halo")}
    return {
        "autoencoder": {
            "levels": len(coder.config.block_out_channels),
            "zooms": bool(getattr(coder, "zooms", False)),
            "has_detail": bool(getattr(coder, "has_detail", False)),
            **halos,
        },
        "native": getattr(unet.config, "sample_size", None),
        "weights": dict(costs.networks.weights),
        "largest_layer": costs.networks.largest_layer,
    }


def _place() -> Path:
    return user_cache_path("supir", appauthor=False) / "costs"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "networks" in found else None


def kept_rate(model: str, device: str, dtype: torch.dtype) -> float:
    """Operations a second: what this model last reached on this machine, else what is measured.

    Args:
        model: the key of its ``KeptCosts``.
        device: as ``measured_rate`` takes it.
        dtype: likewise.
    """
    found = seen_rate(model, device)
    return found if found is not None else measured_rate(device, dtype)


def seen_rate(model: str, device: str, part: str = "") -> float | None:
    """What this model last reached on this machine, in one part of the work or in all; None before it has restored."""
    return _rates().get(_name(model, device, part))


def keep_rates(model: str, device: str, reached: Mapping[str, float]) -> None:
    """Remember what was reached in each part, and in all (""): half of it at once, and half of what was known. What
    cannot be kept is let go.
    """
    rates = _rates()
    for part, rate in reached.items():
        name = _name(model, device, part)
        rates[name] = rate if name not in rates else (rates[name] * rate) ** 0.5
    with suppress(OSError):
        write_whole(_place().parent / "rates.json", json.dumps(rates))


def _name(model: str, device: str, part: str = "") -> str:
    kind = device.split(":")[0]
    return f"{model} {kind} {torch.get_num_threads() if kind == 'cpu' else 0} {part}".strip()


def _rates() -> dict[str, float]:
    try:
        found = json.loads((_place().parent / "rates.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): float(rate) for name, rate in found.items() if isinstance(rate, (int, float)) and rate > 0}


def ship() -> None:
    """Trace what comes with the bundled model anew: whatever a plan on a processor, plain, asks for."""
    from supir.options import PRESETS, restore_options
    from supir.planner.plan import Passes

    for path in SHIPPED.glob("*.json"):
        path.unlink()
    costs = KeptCosts(BUNDLED_MODEL, NetworkOptions())
    costs._known = {}
    own = read_model_index(BUNDLED_MODEL, "SupirPipeline").get("presets")
    for preset, scale in itertools.product(PRESETS, (1.0, 2.0, 4.0)):  # E_dr sees each of these another way
        passes = Passes(costs, restore_options(preset, model_presets=own, scale=scale), 512, 512)
        _ = passes.operations(), passes.peak
    write_whole(SHIPPED / f"{costs.key}.json", json.dumps(costs._known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    ship()
