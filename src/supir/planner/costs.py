"""Bytes and operations of the networks' parts, from shapes alone: networks and tensors lie on the meta device.

What a pass holds at its worst is counted as its operations are dispatched: every storage from its making to its end.
Attention counts as its fused kernels work, which never hold the matrix of all pairs.
"""

from __future__ import annotations

import json
import math
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from supir.errors import WeightsError
from supir.models.quantized import quantize_weights, quantized_kind
from supir.models.restorers import PASS_TILE
from supir.options import NetworkOptions, RestoreOptions
from supir.restoration.denoiser_network import Conditions
from supir.restoration.restorer import Restorer
from supir.restoration.schedules import noise_schedule
from supir.sampling.noise import SampleNoise
from supir.tensors.memory import stored_bytes
from supir.weights.model_folder import STORED, check_model_index, dtypes_of, read_model_index

NUM_TOKENS = 77
TRACED = 32
"""Side in pixels of the latent at which bytes are traced."""
ENLARGED_BYTES = 36
"""A pixel of a picture that is enlarged inside a network: three colours in float32, three times over."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one pass."""

    peak: int
    """Bytes beside weights and inputs at the worst moment."""
    operations: int
    """Floating-point operations; a multiply-add counts two."""
    kept: int = 0
    """Bytes of what the pass hands over."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The components of a pipeline, on the meta device in the types that they would have."""

    components: Mapping[str, nn.Module]
    weights: Mapping[str, int]
    """Bytes of every component."""
    largest_layer: int
    """Bytes of the weights of one layer, of that which has most."""


def networks_of(folder: Path, options: NetworkOptions, device: str = "cpu") -> Networks:
    """The networks that a model folder's configurations describe; no weights are read.

    ``device`` is the kind that they are to run on, which need not be here.

    Raises:
        OptionError: the device or the model does not bear their arithmetic.
        WeightsError: the folder is no model folder, names unknown libraries, or lacks a configuration.
    """
    check_model_index(folder, "SupirPipeline")
    found: dict[str, nn.Module] = {}
    index = read_model_index(folder, "SupirPipeline")
    dtype, coder = dtypes_of(folder, index, options, device)
    for name, entry in index.items():
        if not isinstance(entry, list) or len(entry) != 2 or entry[0] is None or name.startswith("tokenizer"):
            continue
        try:
            kind = getattr(import_module(entry[0]), entry[1])
            config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, AttributeError) as error:
            raise WeightsError(f"{folder / name}: its configuration cannot be read: {error}") from error
        with torch.device("meta"):
            made = kind(kind.config_class(**config)) if entry[0] == "transformers" else kind.from_config(config)
        found[name] = nn.Module.to(made.eval(), coder if name == "autoencoder" else dtype)
        if options.quantize != "none" and name in STORED:
            quantize_weights(made, options.quantize)
    return _networks(found, found)


def on_meta(components: Mapping[str, nn.Module]) -> Networks:
    """The same for networks that are loaded: built anew from their configurations, in their arithmetic.

    Those that are not there are left out: a pipeline that only makes previews has an autoencoder alone.
    """
    found = {}
    for name in ("autoencoder", "unet", "adaptor"):
        if name not in components:
            continue
        network: Any = components[name]
        with torch.device("meta"):
            made = type(network).from_config(network.config)
        # Its own word for its arithmetic: weights may lie in another type until they are used.
        found[name] = nn.Module.to(made.eval(), network.dtype)
        if (kind := quantized_kind(network)) is not None:
            quantize_weights(found[name], kind)
    return _networks(found, components)


def _networks(found: Mapping[str, nn.Module], held: Mapping[str, nn.Module]) -> Networks:
    weights = {name: sum(map(stored_bytes, (*part.parameters(), *part.buffers()))) for name, part in held.items()}
    layers = (
        sum(map(stored_bytes, (*layer.parameters(recurse=False), *layer.buffers(recurse=False))))
        for part in held.values()
        for layer in part.modules()
    )
    return Networks(components=found, weights=weights, largest_layer=max(layers))


class Costs:
    """The costs of a pipeline's passes, each traced once."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._coder, self._unet, self._adaptor = (
            cast(Any, networks.components.get(name)) for name in ("autoencoder", "unet", "adaptor")
        )
        self.encode = cache(self._encode)
        self.decode = cache(self._decode)
        self.evaluate = cache(self._evaluate)

    @property
    def dtype(self) -> torch.dtype:
        """Of the UNet's arithmetic."""
        found: torch.dtype = self._unet.dtype
        return found

    @property
    def coder_dtype(self) -> torch.dtype:
        """Of the autoencoder's."""
        found: torch.dtype = next(self._coder.parameters()).dtype
        return found

    @property
    def stored(self) -> str | None:
        """How the UNet's weights are stored, where that is not their dtype."""
        return quantized_kind(self._unet)

    def peak_of_evaluation(self, height: int, width: int) -> float:
        """Bytes at the worst moment of a whole evaluation of one row.

        Every large tensor is in proportion to the pixels, so one small trace tells for all sizes; but weights of 8 bits
        that are widened for a call are as large for any size, so there each size is traced.
        """
        if self.stored is not None:
            return self.evaluate(1, height, width, False, "whole").peak
        return self.evaluate(1, TRACED, TRACED, False, "whole").peak * height * width / TRACED**2

    def peak_of_coder(self, height: int, width: int, encoding: bool, zoom: int = 1) -> float:
        """Likewise of the autoencoder, whichever encoder takes more; in pixels of what goes in."""
        if not encoding:
            return self.decode(TRACED, TRACED).peak * height * width / TRACED**2
        side = 8 * TRACED
        worst = max(self.encode(side, side, degraded, 1).peak for degraded in (True, False)) / side**2
        if zoom == 1:
            return worst * height * width
        again = math.prod(min(zoom * length, PASS_TILE) for length in (height, width))
        return worst * max(again, height * width) + ENLARGED_BYTES * zoom**2 * height * width

    def operations_of_evaluation(self, height: int, width: int, unet_outer: bool, adaptor: str) -> float:
        """Of a whole evaluation of one row: convolutions grow as the pixels, attention as their square.

        So three sizes tell for all.
        """
        return _at_size(lambda side: self.evaluate(1, side, side, unet_outer, adaptor), height * width)

    def operations_of_encoding(self, height: int, width: int, degraded: bool, zoom: int = 1) -> float:
        """Likewise of a tile of so many pixels, which E_dr sees so many times larger."""
        return _at_size(lambda side: self.encode(8 * side, 8 * side, degraded, zoom), height * width / 64)

    def operations_of_decoding(self, height: int, width: int) -> float:
        """Likewise of a tile of so many pixels of the latent."""
        return _at_size(lambda side: self.decode(side, side), height * width)

    def _encode(self, height: int, width: int, degraded: bool, zoom: int = 1) -> Cost:
        """A tile of so many pixels."""
        encode: Any = self._coder.encode_degraded if degraded else self._coder.encode
        encode = encode if zoom == 1 else partial(encode, zoom=zoom)
        pixels = self._zeros(self._coder, 3, height, width)
        return traced(lambda: encode(pixels).latent_dist.parameters)

    def _decode(self, height: int, width: int) -> Cost:
        """A tile of so many pixels of the latent."""
        latent = self._zeros(self._coder, self._coder.config.latent_channels, height, width)
        return traced(lambda: self._coder.decode(latent).sample)

    def _evaluate(self, rows: int, height: int, width: int, unet_outer: bool, adaptor: str) -> Cost:
        """Adaptor and UNet over tiles of so many pixels of the latent, ``rows`` of them; see ``Evaluation``."""
        unet = self._unet
        sample = self._zeros(unet, unet.config.in_channels, height, width, rows)
        text = self._text(rows)

        def control() -> list[Tensor]:
            return self._control(sample, text, outer_only=adaptor == "outer")

        def predict(features: list[Tensor], deep: Tensor | None) -> Any:
            return unet(sample, text["timestep"], text["tokens"], added_cond_kwargs=text, control=features, deep=deep)

        kept = control() if adaptor == "kept" or unet_outer else None
        deep = predict(self._control(sample, text), None).deep if unet_outer else None
        return traced(lambda: predict(kept if adaptor == "kept" and kept is not None else control(), deep).sample)

    def kept(self, height: int, width: int) -> tuple[int, int]:
        """Bytes of one row's adaptor features, and of its deep feature."""
        unet = self._unet
        sample = self._zeros(unet, unet.config.in_channels, height, width)
        text = self._text(1)
        control = self._control(sample, text)
        deep = unet(sample, text["timestep"], text["tokens"], added_cond_kwargs=text, control=control).deep
        return sum(feature.nbytes for feature in control), deep.nbytes

    def _control(self, sample: Tensor, text: dict[str, Tensor], outer_only: bool = False) -> list[Tensor]:
        found: list[Tensor] = self._adaptor(
            sample, text["timestep"], text["tokens"], text, sample, outer_only=outer_only
        )
        return found

    def _text(self, rows: int) -> dict[str, Tensor]:
        config = self._unet.config
        like: dict[str, Any] = {"device": "meta", "dtype": self.dtype}
        return {
            "timestep": torch.zeros(rows, device="meta"),
            "tokens": torch.zeros(rows, NUM_TOKENS, config.cross_attention_dim, **like),
            "vector": torch.zeros(rows, config.projection_class_embeddings_input_dim, **like),
        }

    @staticmethod
    def _zeros(network: nn.Module, channels: int, height: int, width: int, rows: int = 1) -> Tensor:
        kind = cast(Any, network).dtype
        return torch.zeros(rows, channels, height, width, device="meta", dtype=kind)


def _at_size(cost: Callable[[int], Cost], pixels: float) -> float:
    """Operations at so many pixels, on the parabola through those of three squares."""
    known = [(side**2, cost(side).operations) for side in (TRACED // 2, TRACED, 2 * TRACED)]
    found = 0.0
    for place, operations in known:
        others = [other for other, _ in known if other != place]
        found += operations * math.prod((pixels - other) / (place - other) for other in others)
    return found


@torch.no_grad()
def traced(work: Callable[[], Any]) -> Cost:
    """The cost of what ``work`` does with tensors on the meta device."""
    with _Attention() as attention, FlopCounterMode(display=False) as counter, _Live() as live:
        result = work()
    return Cost(
        peak=live.peak,
        operations=counter.get_total_flops() + attention.operations,
        kept=sum(tensor.nbytes for tensor in tree_iter(result) if isinstance(tensor, Tensor)),
    )


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages made inside and not yet let go, and the most that there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {id(self._storage(each)) for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)}
        result = func(*args, **(kwargs or {}))
        for each in tree_iter(result):
            if isinstance(each, Tensor):
                storage = self._storage(each)
                if id(storage) not in self._seen and id(storage) not in before:
                    self._begin(storage)
        return result

    @staticmethod
    def _storage(tensor: Tensor) -> Any:
        return tensor.untyped_storage()

    def _begin(self, storage: Any) -> None:
        number, size = id(storage), storage.nbytes()
        self._seen.add(number)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._end, number, size)

    def _end(self, number: int, size: int) -> None:
        self._seen.discard(number)
        self.now -= size


class _Attention(TorchFunctionMode):
    """Scaled dot-product attention as a fused kernel: its output, its operations, nothing between."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = (*args, *(kwargs[n] for n in ("query", "key", "value") if n in (kwargs or {})))[:3]
        pairs = math.prod(query.shape[:-1]) * key.shape[-2]
        self.operations += 2 * pairs * (query.shape[-1] + value.shape[-1])
        return query.new_empty((*query.shape[:-1], value.shape[-1]))


SIDE = 1024
SECONDS = 0.5
SHORTEST = 0.02
"""Seconds of a measurement: a single product takes a GPU microseconds, less than to start it and to wait for it."""
EFFICIENCY = 0.75
"""Share of the matrix-multiply peak that a full-size call reaches (`make bench`); thin networks reach less."""


def measured_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second that networks of ``dtype`` can be expected to reach, from half a second of products."""
    left, right = (torch.ones(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))

    def seconds(number: int) -> float:
        start = time.perf_counter()
        for _ in range(number):
            found = torch.mm(left, right)
        float(found[0, 0])  # waits for a GPU to finish
        return time.perf_counter() - start

    number = 1
    seconds(number)
    while (taken := seconds(number)) < SHORTEST:
        number *= 2
    fastest, end = taken, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        fastest = min(fastest, seconds(number))
    return EFFICIENCY * 2 * SIDE**3 * number / fastest


NUM_OUTER = 3
NUM_FEATURES = 10


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one step runs of each tile."""

    branches: int
    """1, or 2 where text guidance is on."""
    unet_outer: bool
    """The outermost blocks alone, the deep features being kept ones."""
    adaptor: str
    """``whole``, ``outer`` or ``kept``."""


class _Recorder:
    """Stands for UNet and adaptor; notes what it is asked for."""

    dtype = torch.float32
    config = SimpleNamespace(prediction_type="epsilon")
    up_blocks = (SimpleNamespace(resnets=[None] * NUM_OUTER),)

    def __init__(self) -> None:
        self.found: list[Evaluation] = []
        self._adaptor = "kept"

    def adaptor(self, sample: Tensor, *conditions: Any, outer_only: bool = False) -> list[Tensor]:
        self._adaptor = "outer" if outer_only else "whole"
        return [sample] * (NUM_OUTER if outer_only else NUM_FEATURES)

    def __call__(self, sample: Tensor, *conditions: Any, deep: Tensor | None, **more: Any) -> Any:
        self.found.append(Evaluation(branches=len(sample), unet_outer=deep is not None, adaptor=self._adaptor))
        self._adaptor = "kept"
        return SimpleNamespace(sample=torch.zeros_like(sample), deep=sample)


def evaluations(options: RestoreOptions) -> Counter[Evaluation]:
    """How often a restoration with these options runs what, for one picture of one tile.

    Counted by the real stack of wrappers over networks of no size.
    """
    recorder: Any = _Recorder()
    coder = SimpleNamespace(config=SimpleNamespace(block_out_channels=(1,)))
    restorer = Restorer(autoencoder=coder, unet=recorder, adaptor=recorder.adaptor, options=options)
    latent, word = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1)
    conditions = Conditions(tokens=word[None], vector=word, negative_tokens=word[None], negative_vector=word)
    schedule = noise_schedule(options)
    denoise = restorer.denoiser(latent, latent, conditions, schedule)
    restorer.sample(denoise, latent, schedule, SampleNoise([0]))
    return Counter(recorder.found)
