"""A named run from its request to its product: a whole model folder whose trained part is the averaged weights.

    RUN/configuration.json   checkpoints/   best/   sheets/   log.jsonl   tensorboard/   model/

Every run starts from a model folder (of the run before, or a converted one), or from random weights of its size, and
ends with a model folder that ``SupirPipeline.from_pretrained`` opens and the next run starts from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from transformers import CLIPTokenizer

from supir.degradation.recipes import VERSIONS
from supir.errors import OptionError
from supir.files import alone, folder_whole
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.pipeline import SupirPipeline
from supir.training import states as checkpoint
from supir.training.loop import Stage, Trainer
from supir.training.pairs import Heldout, psnr
from supir.training.photographs import Photographs, open_photographs
from supir.training.recipes import USES, StageOptions, freeze, shares, stored_options
from supir.training.sharding import make_accelerator
from supir.training.sizes import SIZES, Networks, build_size, with_fresh_connectors
from supir.training.stage_context import Metric, StageContext, hold_frozen
from supir.training.stages.adaptor import adaptor_stage, with_half_trunk
from supir.training.stages.autoencoder import autoencoder_stage, sampled, start_from_principal_components
from supir.training.stages.encoder import encoder_stage, with_copied_encoder
from supir.training.stages.generator import generator_stage, presets_of
from supir.training.stages.lora import ADAPTER, add_layers, lora_stage, merge, save_adapter
from supir.training.stages.prior import prior_stage
from supir.training.stages.restorer import restorer_stage, vgg_metric, with_asked_restorer
from supir.weights.model_folder import BUNDLED_MODEL, check_replaceable, read_model_index

logger = logging.getLogger(__name__)

STAGE_MAKERS: dict[str, Callable[[StageContext], Stage]] = {
    "autoencoder": autoencoder_stage,
    "prior": prior_stage,
    "encoder": encoder_stage,
    "restorer": restorer_stage,
    "adaptor": adaptor_stage,
    "generator": generator_stage,
    "lora": lora_stage,
}
PRODUCT = "model"
"""Name of the model folder in a run's."""
NUM_HELDOUT = 6
_PASSED = {
    **dict.fromkeys(("autoencoder", "encoder", "restorer"), ("autoencoder",)),
    **dict.fromkeys(("prior", "adaptor", "generator", "lora"), ("unet", "adaptor")),
}
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_NETWORKS = ("autoencoder", "unet", "adaptor", "text_encoder", "text_encoder_2")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be trained, on what, and where to."""

    options: StageOptions
    data: tuple[Path, ...]
    out: Path
    start: Path | None = None
    """Model folder to start from; None makes random weights of the options' size."""
    negatives: Path | None = None
    """Folder of negative-quality pictures; None makes them by plain degradation."""
    heldout: Path | None = None
    """Folder of held-out pictures; None takes held-out tiles, or else sets some pictures of the data aside."""
    weights: tuple[float, ...] | None = None
    """Share of each folder of ``data`` among the samples; None takes all pictures alike."""


@dataclass(frozen=True)
class Run:
    """A run that is ready to go, or to go on."""

    request: Request
    trainer: Trainer

    def train(self) -> Path | None:
        """Train; returns the model folder, or None when the minutes ran out and the run is to be continued.

        Raises:
            StateError: the last state, or the model, cannot be written; the same request continues.
            SupirError: another process trains in that folder.
        """
        first = self.trainer.accelerator.is_main_process
        with alone(self.request.out / ".lock", "training run") if first else nullcontext():
            if not self.trainer.train():
                return None
            product = self.request.out / PRODUCT
            if first:
                write_model(self.request, product, averages(self.request.out))
        self.trainer.accelerator.wait_for_everyone()
        return product


def open_run(
    request: Request,
    *,
    metrics: Mapping[str, Metric] | None = None,
    minutes: float | None = None,
    curves: bool = True,
) -> Run:
    """Prepare a run, and continue it where its folder holds a state.

    Args:
        metrics: of the held-out pictures; PSNR where there are none.
        minutes, curves: as in ``Trainer``.

    Raises:
        OptionError: the folder holds another run, or pictures or model cannot be used.
        WeightsError: the model to start from cannot be loaded.
    """
    options = request.options
    cv2.setNumThreads(1)
    accelerator = make_accelerator(
        mixed_precision=options.mixed_precision,
        accumulation=options.accumulation,
        unused=options.stage == "prior" and options.learn_words,  # the words' last layers
    )
    if accelerator.is_main_process:
        freeze(request.out, options, where_from(request, accelerator.num_processes))
    accelerator.wait_for_everyone()
    photographs = open_photographs(request.data, weights=request.weights, seed=options.seed)
    photographs, heldout = _parted(photographs, request.heldout)
    networks, _ = load_networks(options, request.start)
    if (
        request.start is None
        and options.stage == "autoencoder"
        and isinstance(networks["autoencoder"], ThinAutoencoder)
    ):
        start_from_principal_components(networks["autoencoder"], sampled(photographs, options.crop))
    materials = StageContext(
        options=options,
        networks=taking_part(networks, options),
        photographs=photographs,
        negatives=open_photographs([request.negatives]) if request.negatives else None,
        heldout=Heldout.of(heldout, options.crop, shares(options.degradation), NUM_HELDOUT),
        device=accelerator.device,
        metrics=_metrics(metrics, options),
    )
    trainer = Trainer(make_stage(materials), request.out, options, accelerator, minutes=minutes, curves=curves)
    trainer.resume()
    return Run(request, trainer)


def _metrics(given: Mapping[str, Metric] | None, options: StageOptions) -> dict[str, Metric]:
    """Of the held-out pictures, LPIPS by VGG16 among them where it is at hand."""
    return dict(given or {"psnr": psnr}) | ({"vgg": vgg_metric(Path(options.perceptual))} if options.perceptual else {})


def make_stage(materials: StageContext) -> Stage:
    """The stage of a run's options, its gradient checkpointing switched on where they ask for it.

    Its networks go to the run's device here, what does not learn in the type it is held in.

    Raises:
        OptionError: a network that learns cannot do gradient checkpointing.
    """
    stage = STAGE_MAKERS[materials.options.stage](materials)
    stage.num_left_out = materials.num_left_out
    for name in USES[materials.options.stage]:
        module = materials.networks[name]
        for parameter_name, parameter in module.named_parameters():
            parameter.requires_grad_(name in stage.modules and not stage.frozen(f"{name}.{parameter_name}"))
        hold_frozen(module, materials.options)
        module.to(materials.device)
    if materials.options.gradient_checkpointing:
        for name in checkpointed(materials.options):
            module = materials.networks[name]
            if not getattr(module, "_supports_gradient_checkpointing", False):
                raise OptionError(f"gradient_checkpointing is True, but this model's {name} cannot do it; set it false")
            module.enable_gradient_checkpointing()
            module.train()  # diffusers checkpoints in this mode only; no layer computes differently in it
    return stage


def checkpointed(options: StageOptions) -> tuple[str, ...]:
    """The components that the gradient passes through."""
    passed = (*_PASSED[options.stage], *(("autoencoder",) if options.frozen_prior else ()))
    return tuple(name for name in USES[options.stage] if name in passed)


def where_from(request: Request, num_processes: int) -> dict[str, Any]:
    """What decides a run's weights beside its options."""
    drawn = shares(request.options.degradation)
    return {
        "recipe versions": {name: VERSIONS[name] for name in drawn if name in VERSIONS} or None,
        "held out": str(request.heldout) if request.heldout else "of the data",
        "data": [str(folder) for folder in request.data],
        "weights": None if request.weights is None else list(request.weights),
        "from": str(request.start) if request.start else None,
        "negatives": str(request.negatives) if request.negatives else None,
        "processes": num_processes,
    }


def load_networks(options: StageOptions, start: Path | None) -> tuple[Networks, dict[str, Any]]:
    """All components in float32, tokenizers included, and the presets of the model.

    Raises:
        OptionError: nothing to start from at the paper's size.
        WeightsError: the folder cannot be loaded.
    """
    if start is not None:
        pipeline = SupirPipeline.from_pretrained(start, dtype=torch.float32)
        return _begun(dict(pipeline.components), options), dict(pipeline.config.presets or {})
    if options.size == "paper":
        raise OptionError("size is 'paper': give a converted SDXL model to start from, as `supir convert` makes it")
    networks = build_size(options.size, seed=options.seed, connectors=options.new_connectors) | tokenizers()
    return _begun(networks, options), SIZES[options.size].presets


def _begun(networks: Networks, options: StageOptions) -> Networks:
    """The networks, those replaced that a run begins anew."""
    if options.trunk == "half":
        networks = with_half_trunk(networks)
    kind = networks["unet"].config.connector_kind
    if options.fresh_connectors or options.connectors not in ("given", kind):
        asked = kind if options.connectors == "given" else options.connectors
        networks = networks | {"unet": with_fresh_connectors(networks["unet"], asked, options.seed)}
    if options.stage == "encoder" and options.copy_start:
        return networks | {"autoencoder": with_copied_encoder(networks["autoencoder"], options.seed)}
    if options.stage == "restorer":
        return networks | {"autoencoder": with_asked_restorer(networks["autoencoder"], options)}
    return networks


def taking_part(networks: Networks, options: StageOptions) -> Networks:
    """The components of the stage, and the tokenizers."""
    used = {name: networks[name].eval() for name in USES[options.stage]}
    return used | {name: networks[name] for name in _TOKENIZERS}


def tokenizers() -> Networks:
    """Those of CLIP, by their names in a pipeline."""
    return {name: CLIPTokenizer.from_pretrained(BUNDLED_MODEL / name) for name in _TOKENIZERS}


def export(run: Path, *, best: bool = False) -> Path:
    """Write the model of a run that need not be finished, nor stand still: ``RUN/model_step_00000400``, or
    ``model_best_...`` of its best state; returns that folder.

    Raises:
        OptionError: there is no run, or no state yet.
        StateError, WeightsError: as ``write_model``.
    """
    options, other = stored_options(run)
    start = other.get("from")
    request = Request(options=options, data=tuple(map(Path, other["data"])), out=run, start=start and Path(start))
    state = averages(run, best=best)
    product = run / f"{PRODUCT}_{'best' if best else 'step'}_{state.numbers['step']:08d}"
    write_model(request, product, state)
    return product


def averages(run: Path, *, best: bool = False) -> checkpoint.State:
    """The averaged weights of a run's newest state, or of its best one.

    Raises:
        OptionError: there is no state yet.
        StateError: it cannot be read.
    """
    state = checkpoint.load_averages(run, best=best)
    if state is None:
        raise OptionError(f"{run} holds no {'best' if best else 'whole'} state; train first")
    return state


def write_model(request: Request, folder: Path, state: checkpoint.State) -> None:
    """Write the model of a run: what it started from, with the averages put in.

    A ``lora`` run also writes its adapter beside the folder.

    Raises:
        StateError: it cannot be written.
        WeightsError: the folder is there and holds something else than a model.
    """
    check_replaceable(folder, "SupirPipeline")
    values = {**state.weights, **state.ema}
    networks, presets = load_networks(request.options, request.start)
    if request.options.stage == "generator":
        presets = presets_of(request.options, presets)
    layers = add_layers(networks, request.options) if request.options.stage == "lora" else {}
    _put(networks, values)
    if layers:
        save_adapter(layers, request.out / ADAPTER)
        merge(layers)
    borne = None if request.start is None else read_model_index(request.start, "SupirPipeline").get("dtypes")
    pipeline = SupirPipeline(**networks, presets=presets, dtypes=borne)
    needed = sum(parameter.nbytes for name in _NETWORKS for parameter in networks[name].parameters())
    with checkpoint.said(folder, needed), folder_whole(folder) as new:
        pipeline.save_pretrained(new, safe_serialization=True)


@torch.no_grad()
def _put(networks: Networks, values: Mapping[str, torch.Tensor]) -> None:
    for component in _NETWORKS:
        known = networks[component].state_dict(keep_vars=True)
        for name, tensor in known.items():
            if f"{component}.{name}" in values:
                tensor.copy_(values[f"{component}.{name}"])


def _parted(photographs: Photographs, heldout: Path | None) -> tuple[Photographs, Photographs]:
    """(To learn from, held out), which have no picture in common.

    Raises:
        OptionError: a picture of ``heldout`` is one of the others too, or there is nothing to hold out.
    """
    if heldout is None:
        return photographs.parted()
    others = open_photographs([heldout])
    common = {path.resolve() for path in photographs.paths} & {path.resolve() for path in others.paths}
    if common:
        raise OptionError(f"{min(common)} is in --heldout and in --data; it must be in one of them")
    return photographs, others
