"""SDXL, in a single file or a folder, and a published SUPIR file into a model folder, one shard at a time.

Everything is settled from names and shapes first (`supir.weights.plan`), so a file that does not fit costs no time. The
folder is written under another name and renamed when it is whole.
"""

from __future__ import annotations

import errno
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
from supir.weights.catalog import REPORT_NAME, recognise
from supir.weights.checkpoint import TensorSource
from supir.weights.gather import gather
from supir.weights.hub import Opened
from supir.weights.layout import HeadDims
from supir.weights.model_folder import BUNDLED_MODEL, INDEX, OPENER, OPENER_TEXT, check_replaceable
from supir.weights.parts import Parts
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
TOKENIZER_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """One file or folder that went in; the hash is a file's own, or that of the files of a folder that were read."""

    name: str
    sha256: str
    num_bytes: int
    num_tensors: int
    recognised: tuple[str, ...]
    licences: tuple[str, ...]
    distilled: str | None = None
    """How it is distilled to few steps, by its name and titles."""


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
    notes: tuple[str, ...] = ()
    """What else a user should know of the model."""

    def summary(self) -> str:
        """A few lines for people: files, terms, counts, keys that did not fit."""
        lines = [f"{source.name}: {', '.join(source.recognised) or 'unknown weights'}" for source in self.sources]
        lines += sorted({terms for source in self.sources for terms in source.licences})
        lines += [f"{name}: {count / 1e6:,.1f} million parameters" for name, count in self.parameters.items()]
        lines.append(self.keys.summary())
        lines += self.notes
        if len(self.tokenizers) < len(TOKENIZERS):
            lines.append("No tokenizers were at hand to copy: put `tokenizer` and `tokenizer_2` into the folder.")
        return "\n".join(lines)


def convert(
    sdxl: Path | str,
    supir: Path | str | None,
    out: Path | str,
    *,
    vae: Path | str | None = None,
    text: Path | str | None = None,
    mix: tuple[Path | str, float] | None = None,
    prediction_type: str | None = None,
    apart: bool = False,
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
        sdxl: an SDXL single file (.safetensors, or a .ckpt of tensors alone), or a diffusers folder of SDXL.
        supir: a published SUPIR file, whose keys override; None when `sdxl` has its parts.
        out: the folder to write; it must not exist or be empty, unless `overwrite`, and then be a model folder of ours.
        vae: a file or folder whose autoencoder is taken instead of the base's.
        text: a folder or an SDXL file whose text towers are taken instead of the base's.
        mix: another SUPIR file, and its share from 0 to 1 of the weights that SUPIR adds.
        prediction_type: ``epsilon`` or ``v_prediction``; None takes what the files say.
        apart: write no weights: the folder says in which files they lie, and they are joined when it is loaded.
        dtype: of the weights written: float16, bfloat16 or float32; the autoencoder's stay float32, as it runs in that.
        strict: raise where a part that SUPIR adds is in no file; otherwise see `supir.weights.plan.make_plan`.
        shard_bytes: the largest file to write.
        tokenizers: a model folder to copy `tokenizer` and `tokenizer_2` from, where the files given have none.
        on_progress: called with bytes written and bytes in all.

    Warns:
        of keys that no place needs.

    Raises:
        OptionError: `dtype` or `prediction_type` is none of those above.
        UnsafeCheckpointError: a file could run code when read.
        WeightsError: a file is missing, damaged, truncated or of another kind; `out` exists and may not be replaced.
        KeyMismatchError: keys are missing or mis-shaped, or a part is absent and `strict` is set.
    """
    if dtype not in DTYPES:
        raise OptionError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    out = Path(out)
    if out.exists() and not overwrite:
        raise WeightsError(f"{out} exists already; give another folder, or replace it with --overwrite")
    check_replaceable(out, "SupirPipeline")
    given = gather(sdxl, supir, vae=vae, text=text, mix=mix, prediction_type=prediction_type)
    parts = None
    if apart:
        if not strict:
            raise OptionError("weights that begin anew are in no file; convert them into a folder of their own")
        parts = Parts.of(given, sdxl=sdxl, supir=supir, vae=vae, text=text, mix=mix, prediction_type=prediction_type)
    plan = make_plan(
        given.source, head_dims=head_dims or given.head_dims, strict=strict, what=given.what, traits=given.traits
    )
    donor = given.tokenizers or Path(tokenizers)
    report = ConversionReport(
        folder=out,
        dtype=dtype,
        sources=tuple(map(_record, given.given)),
        keys=plan.report,
        num_overridden=given.source.num_overridden,
        parameters={
            component.name: sum(parameter.numel() for parameter in component.model.parameters())
            for component in plan.components
        },
        tokenizers=tuple(name for name in TOKENIZERS if (donor / name).is_dir()),
        notes=_notes(plan, given.distilled),
    )
    needed = 0 if apart else _bytes_in_all(plan, DTYPES[dtype])
    try:
        _check_room(out, needed)
        with folder_whole(out) as new:
            _write_folder(new, plan, None if apart else given.source, DTYPES[dtype], shard_bytes, on_progress)
            if parts is not None:
                parts.write(new)
            for name in report.tokenizers:
                _copy_tokenizer(donor / name, new / name)
            _write_json(new / REPORT_NAME, asdict(report) | {"folder": out.name})
            check_replaceable(out, "SupirPipeline")  # a while has passed
    except (OSError, SafetensorError) as error:
        if (found := disk_error(error)) is None:
            raise
        raise WeightsError(sentence(found, out, failed="cannot be written", needed=needed)) from error
    return report


def _check_room(out: Path, needed: int) -> None:
    folder = out.parent
    while not folder.exists():
        folder = folder.parent
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, "no room", str(out))


def _copy_tokenizer(donor: Path, folder: Path) -> None:
    """The files of a tokenizer, and nothing else that may lie there."""
    folder.mkdir()
    for path in donor.iterdir():
        if path.name in TOKENIZER_FILES:
            shutil.copyfile(path, folder / path.name)


def _notes(plan: Plan, distilled: str | None) -> tuple[str, ...]:
    traits = plan.traits
    notes = []
    if traits.prediction_type == "v_prediction":
        notes.append("The UNet predicts velocity (v-prediction); the folder says so, and it is sampled so.")
    if traits.zero_terminal_snr:
        notes.append("It was trained with zero terminal SNR, and sampling begins at SDXL's highest noise level.")
    if distilled is not None:
        notes.append(
            f"The base is distilled to few steps ({distilled}): restore with the preset lightning, and take SUPIR-v0F"
            " beside it; with v0Q people got noise."
        )
    return tuple(notes)


def _record(given: Opened) -> SourceRecord:
    known = recognise(given.source.shapes)
    return SourceRecord(
        name=given.path.name,
        sha256=given.sha256,
        num_bytes=sum(path.stat().st_size for path in given.files),
        num_tensors=len(given.source.shapes),
        recognised=tuple(weights.name for weights in known),
        licences=tuple(f"{weights.name}: {weights.licence}. {weights.terms}" for weights in known),
        distilled=given.distilled,
    )


def _write_folder(
    folder: Path,
    plan: Plan,
    source: TensorSource | None,
    dtype: torch.dtype,
    shard_bytes: int,
    on_progress: Progress | None,
) -> None:
    """Configurations, and weights where there is a source of them."""
    total, done = _bytes_in_all(plan, dtype), 0
    for component in plan.components:
        kind = _dtypes(dtype)[component.name]
        for written in _write_component(folder / component.name, component, source, kind, shard_bytes):
            done += written
            if on_progress is not None:
                on_progress(done, total)
    index: dict[str, Any] = {"_class_name": "SupirPipeline", "_diffusers_version": diffusers.__version__}
    _write_json(folder / INDEX, index | {name: list(classes) for name, classes in CLASSES.items()})
    (folder / OPENER).write_text(OPENER_TEXT, encoding="utf-8")


def _dtypes(dtype: torch.dtype) -> dict[str, torch.dtype]:
    # SDXL's autoencoder overflows in half precision and is run in float32: rounding its weights would gain little.
    return dict.fromkeys(CLASSES, dtype) | {"autoencoder": torch.float32}


def _bytes_in_all(plan: Plan, dtype: torch.dtype) -> int:
    dtypes = _dtypes(dtype)
    return sum(_size(component, dtypes[component.name]) for component in plan.components)


def _write_component(
    folder: Path, component: ComponentPlan, source: TensorSource | None, dtype: torch.dtype, shard_bytes: int
) -> Iterator[int]:
    """Write one component, without a source its configuration alone; gives the bytes of each shard as it is done."""
    folder.mkdir()
    if isinstance(component.model, diffusers.ModelMixin):
        component.model.save_config(folder)
        stem = "diffusion_pytorch_model"
    else:
        component.model.config.architectures = [type(component.model).__name__]
        component.model.config.dtype = dtype
        component.model.config.save_pretrained(folder)
        stem = "model"
    if source is None:
        return
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
