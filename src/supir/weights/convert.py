"""An SDXL single file and a published SUPIR file into a model folder in diffusers' layout, one shard at a time.

Everything is settled from names and shapes first (`supir.weights.plan`), so a file that does not fit costs no time. The
folder is written under another name and renamed when it is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from supir.errors import OptionError, WeightsError
from supir.files import disk_error, folder_whole, sentence
from supir.weights.catalog import REPORT_NAME, file_hash, recognise
from supir.weights.checkpoint import Merged, TensorSource, open_checkpoint
from supir.weights.folder import BUNDLED_MODEL, check_replaceable
from supir.weights.layout import HeadDims
from supir.weights.plan import ComponentPlan, Plan, make_plan
from supir.weights.report import KeyReport

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
SHARD_BYTES = 1_000_000_000
TOKENIZERS = ("tokenizer", "tokenizer_2")
CLASSES = {
    "autoencoder": ("supir.models.autoencoder", "SupirAutoencoder"),
    "unet": ("supir.models.unet", "SupirUNet"),
    "adaptor": ("supir.models.adaptor", "SupirAdaptor"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "tokenizer_2": ("transformers", "CLIPTokenizer"),
}
"""Who loads each subfolder, as `model_index.json` says it."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """One file that went in."""

    name: str
    sha256: str
    num_bytes: int
    num_tensors: int
    recognised: tuple[str, ...]
    licences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What was converted, and every key that did not fit; also saved as `conversion.json` in the folder."""

    folder: Path
    dtype: str
    sources: tuple[SourceRecord, ...]
    keys: KeyReport
    num_overridden: int
    """Keys that both files have; the SUPIR file's were taken."""
    parameters: dict[str, int]
    """Parameters of each component."""
    tokenizers: tuple[str, ...]
    """Tokenizer folders that were copied."""

    def summary(self) -> str:
        """A few lines for people: files, terms, counts, keys that did not fit."""
        lines = [f"{source.name}: {', '.join(source.recognised) or 'unknown weights'}" for source in self.sources]
        lines += sorted({terms for source in self.sources for terms in source.licences})
        lines += [f"{name}: {count / 1e6:,.1f} million parameters" for name, count in self.parameters.items()]
        lines.append(self.keys.summary())
        if len(self.tokenizers) < len(TOKENIZERS):
            lines.append("No tokenizers were at hand to copy: put `tokenizer` and `tokenizer_2` into the folder.")
        return "\n".join(lines)


def convert(
    sdxl: Path | str,
    supir: Path | str | None,
    out: Path | str,
    *,
    dtype: str = "float16",
    strict: bool = True,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    tokenizers: Path | str = BUNDLED_MODEL,
    head_dims: HeadDims | None = None,
    on_progress: Progress | None = None,
) -> ConversionReport:
    """Write the model folder `out` from original files; memory stays at about two shards.

    Args:
        sdxl: an SDXL single file (.safetensors, or a .ckpt of tensors alone).
        supir: a published SUPIR file, whose keys override; None when `sdxl` is a merged file.
        out: the folder to write; it must not exist, unless `overwrite`.
        dtype: of the weights written: float16, bfloat16 or float32; the autoencoder's stay float32, as it runs in that.
        strict: raise unless every key fits; otherwise see `supir.weights.plan.make_plan`.
        shard_bytes: the largest file to write.
        tokenizers: a model folder to copy `tokenizer` and `tokenizer_2` from.
        on_progress: called with bytes written and bytes in all.

    Raises:
        OptionError: `dtype` is none of those above.
        UnsafeCheckpointError: a file could run code when read.
        WeightsError: a file is missing, damaged or truncated, or `out` exists.
        KeyMismatchError: keys are missing, unexpected or mis-shaped and `strict` is set.
    """
    if dtype not in DTYPES:
        raise OptionError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    out = Path(out)
    if out.exists() and not overwrite:
        raise WeightsError(f"{out} exists already; give another folder, or remove it first")
    check_replaceable(out, "SupirPipeline")
    paths = [Path(path) for path in (sdxl, supir) if path is not None]
    opened = [open_checkpoint(path) for path in paths]
    source = Merged(opened)
    plan = make_plan(source, head_dims=head_dims, strict=strict, what=" + ".join(path.name for path in paths))
    report = ConversionReport(
        folder=out,
        dtype=dtype,
        sources=tuple(_record(path, checkpoint) for path, checkpoint in zip(paths, opened, strict=True)),
        keys=plan.report,
        num_overridden=source.num_overridden,
        parameters={
            component.name: sum(parameter.numel() for parameter in component.model.parameters())
            for component in plan.components
        },
        tokenizers=tuple(name for name in TOKENIZERS if (Path(tokenizers) / name).is_dir()),
    )
    try:
        with folder_whole(out) as new:
            _write_folder(new, plan, source, DTYPES[dtype], shard_bytes, on_progress)
            for name in report.tokenizers:
                shutil.copytree(Path(tokenizers) / name, new / name)
            _write_json(new / REPORT_NAME, asdict(report) | {"folder": out.name})
    except (OSError, SafetensorError) as error:
        if (found := disk_error(error)) is None:
            raise
        needed = _bytes_in_all(plan, DTYPES[dtype])
        raise WeightsError(sentence(found, out, failed="cannot be written", needed=needed)) from error
    return report


def _record(path: Path, source: TensorSource) -> SourceRecord:
    known = recognise(source.shapes)
    return SourceRecord(
        name=path.name,
        sha256=file_hash(path),
        num_bytes=path.stat().st_size,
        num_tensors=len(source.shapes),
        recognised=tuple(weights.name for weights in known),
        licences=tuple(f"{weights.name}: {weights.licence}. {weights.terms}" for weights in known),
    )


def _write_folder(
    folder: Path, plan: Plan, source: TensorSource, dtype: torch.dtype, shard_bytes: int, on_progress: Progress | None
) -> None:
    dtypes = _dtypes(dtype)
    total = _bytes_in_all(plan, dtype)
    done = 0
    for component in plan.components:
        kind = dtypes[component.name]
        for written in _write_component(folder / component.name, component, source, kind, shard_bytes):
            done += written
            if on_progress is not None:
                on_progress(done, total)
    index: dict[str, Any] = {"_class_name": "SupirPipeline", "_diffusers_version": diffusers.__version__}
    _write_json(folder / "model_index.json", index | {name: list(classes) for name, classes in CLASSES.items()})


def _dtypes(dtype: torch.dtype) -> dict[str, torch.dtype]:
    # SDXL's autoencoder overflows in half precision and is run in float32: rounding its weights would gain little.
    return dict.fromkeys(CLASSES, dtype) | {"autoencoder": torch.float32}


def _bytes_in_all(plan: Plan, dtype: torch.dtype) -> int:
    dtypes = _dtypes(dtype)
    return sum(_size(component, dtypes[component.name]) for component in plan.components)


def _write_component(
    folder: Path, component: ComponentPlan, source: TensorSource, dtype: torch.dtype, shard_bytes: int
) -> Iterator[int]:
    """Write one component; gives the bytes of each shard as it is done."""
    folder.mkdir()
    if isinstance(component.model, diffusers.ModelMixin):
        component.model.save_config(folder)
        stem = "diffusion_pytorch_model"
    else:
        component.model.config.architectures = [type(component.model).__name__]
        component.model.config.dtype = dtype
        component.model.config.save_pretrained(folder)
        stem = "model"
    shards = _shards(component, dtype, shard_bytes)
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        suffix = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        file_name = f"{stem}{suffix}.safetensors"
        _write_shard(folder / file_name, component, names, source, dtype)
        places |= dict.fromkeys(names, file_name)
        yield sum(_num_bytes(component.shapes[name], dtype) for name in names)
    if len(shards) > 1:
        index = {"metadata": {"total_size": _size(component, dtype)}, "weight_map": places}
        _write_json(folder / f"{stem}.safetensors.index.json", index)


def _write_shard(
    path: Path, component: ComponentPlan, names: Sequence[str], source: TensorSource, dtype: torch.dtype
) -> None:
    """One file; a function of its own, so that its tensors are gone before the next one's are read."""
    tensors = {name: _value(component, name, source, dtype) for name in names}
    save_file(tensors, path, metadata={"format": "pt"})


def _shards(component: ComponentPlan, dtype: torch.dtype, shard_bytes: int) -> list[Sequence[str]]:
    """The component's names, in order, in runs of at most `shard_bytes`."""
    shards: list[Sequence[str]] = []
    run: list[str] = []
    size = 0
    for name, shape in component.shapes.items():
        num_bytes = _num_bytes(shape, dtype)
        if run and size + num_bytes > shard_bytes:
            shards.append(run)
            run, size = [], 0
        run.append(name)
        size += num_bytes
    return [*shards, run]


def _value(component: ComponentPlan, name: str, source: TensorSource, dtype: torch.dtype) -> Tensor:
    """One parameter, checked."""
    tensor = component.tensor(name, source, dtype)
    # The extremes are NaN where any value is, and are found 30 times as fast as by `isfinite` of every value.
    if not all(map(torch.isfinite, tensor.aminmax())):
        raise WeightsError(
            f"{component.name}.{name} holds values that are not finite, or too large for {dtype}; convert with"
            " dtype bfloat16 or float32, or fetch the file again if it is damaged."
        )
    return tensor.contiguous()


def _size(component: ComponentPlan, dtype: torch.dtype) -> int:
    return sum(_num_bytes(shape, dtype) for shape in component.shapes.values())


def _num_bytes(shape: Sequence[int], dtype: torch.dtype) -> int:
    return torch.Size(shape).numel() * dtype.itemsize


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
