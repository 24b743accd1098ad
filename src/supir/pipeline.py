"""SupirPipeline: from a degraded picture to a restored one, in the order of the drawing in the design.

picture -> pixels -> LQ latent -> clean preview -> anchor; words -> text embedding; noise -> solver -> latent ->
picture. What happens between pixels and pixels stands in ``supir.restoration.restorer``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from supir import __version__, image
from supir.errors import OptionError, OutOfMemoryError
from supir.image import FoundFaces, LargePicture, Picture, PictureLike, Placed, Portrait
from supir.models.adaptor import SupirAdaptor
from supir.models.offload import OffloadedByLeaves
from supir.models.text import TextTowers
from supir.models.unet import SupirUNet
from supir.options import DEFAULT_PRESET, NOTICE, RestoreOptions, SigningOptions, restore_options
from supir.options.crop import Crop
from supir.options.distilled import mismatch
from supir.options.loras import split_loras
from supir.planner.costs import Costs, on_meta
from supir.planner.foretelling import Foretelling
from supir.planner.kept import KeptCosts
from supir.planner.plan import GIGABYTE, Extras, picked
from supir.prompts import whole_prompts
from supir.restoration import as_diffusers
from supir.restoration.backoff import ADVICE
from supir.restoration.cropping import cropped_preview
from supir.restoration.denoiser_network import Conditions, embed
from supir.restoration.encoding import LastEncodings
from supir.restoration.finite import widen_networks
from supir.restoration.restorer import RestoredPixels, Restorer, latent_factor, size_multiple
from supir.restoration.schedules import noise_schedule
from supir.restoration.step_preview import SIDE as GLIMPSE
from supir.restoration.step_preview import StepPreviews
from supir.restoration.streaming import Streaming, is_large, size_of
from supir.restoration.work import FIRST, PORTRAITS, WRITING, NoWork, Reached, Work
from supir.sampling.noise import NoiseSource, SampleNoise
from supir.sampling.solvers import Step, StepCallback
from supir.tensors.memory import naming_lack_of_memory
from supir.weights import opening
from supir.weights.catalog import file_hash
from supir.weights.first import First, first_file, identity_of_first, open_first
from supir.weights.runtime import keep_from_overflow

PREVIEW = "the clean preview alone: nothing was sampled"
"""What the record of a preview says."""


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A restored picture: ``picture`` at the asked size, the clean ``preview``, the ``record`` of what was done."""

    picture: Picture
    preview: Picture
    record: dict[str, str]
    marking: bool = True
    """Whether the record goes into the file, and with it that the picture was made with a trained model."""
    signature: image.Signature | None = None
    """What signs the file; None where nothing does."""

    @property
    def image(self) -> Image.Image:
        """The picture as PIL has it, in 8 bits."""
        return image.to_pil(self.picture)

    def show(self) -> None:
        """Show the picture in the program that this machine has for it."""
        self.image.show()

    def save(self, path: str | Path) -> None:
        """Write the picture, marked, with its record in the metadata; the suffix chooses the format."""
        image.write(self.picture, path, record=self.record if self.marking else None, signature=self.signature)

    def __repr__(self) -> str:
        by = self.record.get("model", "an unnamed model")
        return f"<Restored {self.picture.width} x {self.picture.height} by {by}; .image, .save(path), .record>"


def _scaled(options: RestoreOptions, width: int, height: int, suffix: str = "") -> RestoreOptions:
    """With the largest scale that nobody need ask for."""
    scale = image.scale_within(width, height, options.scale, suffix)
    return options if scale == options.scale else options.replace(scale=scale)


class SupirPipeline(OffloadedByLeaves, opening.OpenedPipeline):
    """Restores pictures with an SDXL-like prior steered by the adaptor.

    Made by ``from_pretrained`` (a model folder, or the bundled small model) or ``from_single_file`` (original weights).
    LoRA loading, offload, quantisation and ``save_pretrained`` are those of diffusers.

    Args:
        autoencoder: encode, encode_degraded and decode; latents scaled by its ``config.scaling_factor``.
        unet: the prior with its connectors.
        adaptor: the trunk that reads the LQ latent.
        text_encoder, text_encoder_2, tokenizer, tokenizer_2: SDXL's towers; None where conditions come finished.
        presets: this model's own numbers by preset name, and for ``all`` of them.
        dtypes: the arithmetic that the networks bear, names with commas, preferred ones first; None is any.
    """

    # The adaptor runs beside the UNet in every step, so it stays where it is rather than going to and fro.
    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->autoencoder"

    def __init__(
        self,
        autoencoder: Any,
        unet: SupirUNet,
        adaptor: SupirAdaptor,
        text_encoder: CLIPTextModel | None,
        text_encoder_2: CLIPTextModelWithProjection | None,
        tokenizer: CLIPTokenizer | None,
        tokenizer_2: CLIPTokenizer | None,
        presets: dict[str, dict[str, Any]] | None = None,
        dtypes: str | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            autoencoder=autoencoder,
            unet=unet,
            adaptor=adaptor,
            text_encoder=text_encoder,
            text_encoder_2=text_encoder_2,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
        )
        self.register_to_config(presets=presets, dtypes=dtypes)

    signing: SigningOptions = SigningOptions()
    """Who signs results of picture files, by C2PA."""

    first_folder: Path | None = None
    """The folder whose models ``first`` may name, and no others; None: any file."""

    last_encodings: LastEncodings | None = None
    """Set one, and another seed or preset of the photo that was restored last begins with the sampling."""

    def options(self, preset: str = DEFAULT_PRESET, **overrides: Any) -> RestoreOptions:
        """The options of a preset with this model's own numbers and the user's on top (see ``restore_options``)."""
        return restore_options(preset, model_presets=self.config.presets, **overrides)

    @torch.no_grad()
    def __call__(
        self,
        pictures: PictureLike | list[PictureLike] | None = None,
        options: RestoreOptions | None = None,
        *,
        on_step: StepCallback | None = None,
        on_preview: Callable[[Picture], None] | None = None,
        **overrides: Any,
    ) -> list[Restored]:
        """Restore one picture or several, one after another, each with the same options.

        Arguments of diffusers' pipelines are heard as well (``supir.restoration.as_diffusers``): ``image``,
        ``generator``, ``num_images_per_prompt``, ``callback_on_step_end``, ``num_inference_steps``, ``guidance_scale``;
        and ``output_type``, with which an ``ImagePipelineOutput`` is returned.

        Args:
            pictures: file paths, PIL images, or ``Picture``s.
            options: everything there is to set; None takes ``self.options(**overrides)``.
            on_step: called after each sampling step; raise from it to cancel.
            on_preview: given each picture's clean preview before its sampling begins, at the size of the result.
            overrides: fields of ``RestoreOptions`` and ``preset``.
        """
        said, overrides = as_diffusers.taken(overrides)
        if said is not None:
            variants = [
                result
                for picture, seed in said.each(pictures, overrides.pop("seed", None), options)
                for result in self(
                    picture,
                    options,
                    on_step=on_step or said.on_step(self),
                    on_preview=on_preview,
                    **overrides,
                    seed=seed,
                )
            ]
            return said.output(variants)
        if pictures is None:
            raise OptionError("no picture is given; the first argument, or image, holds one or several")
        unscaled = options is None and overrides.get("scale") is None
        if options is None:
            options = self.options(**overrides)
        elif overrides:
            options = options.replace(**overrides)
        several = pictures if isinstance(pictures, list) else [pictures]
        found = []
        for each in several:
            picture = image.as_picture(each, salvage=options.salvage)
            asked = _scaled(options, picture.width, picture.height) if unscaled else options
            asked, faces = image.with_faces(asked, picture)
            found.append(self._restore(picture, asked, faces, on_step, on_preview))
        return found

    def _restore(
        self,
        picture: Picture,
        options: RestoreOptions,
        faces: FoundFaces,
        on_step: StepCallback | None = None,
        on_preview: Callable[[Picture], None] | None = None,
        work: Work | None = None,
    ) -> Restored:
        """One picture: to working size, through the networks, to the asked size; some faces once more by themselves."""
        given, work = self.fitted(picture, options), work or NoWork()
        if options.first:
            work.at(FIRST, 1.0)

        def show(preview: Tensor) -> None:
            if on_preview is not None:
                on_preview(given.finish(preview[0].clone()))  # what is finished is used up

        frame = options, picture.width, picture.height, given.covered, given.pixels.shape[-2:]
        shares = image.shares_of(*frame, latent_factor(self.autoencoder))
        masks: dict[str, Any] = {"mask": image.mask_of(*frame), "shares": shares}
        known: dict[str, Any] = masks | {"enlargement": given.enlargement}
        result = self.restore_pixels(given.pixels[None], options, on_step=on_step, on_preview=show, work=work, **known)
        made, preview = given.result(result.pixels[0]), given.finish(result.preview[0])
        portraits = self._portraits(faces, picture, (made.height, made.width), work)
        for portrait in portraits:
            made = portrait.put_on(made)
        kept = image.Kept.of(options, (picture.height, picture.width), (made.height, made.width))
        if kept is not None:
            own = image.resize(picture.pixels, made.height, made.width)
            made = kept.put_on(made, lambda rows: own[:, rows], lambda rows: preview.pixels[:, rows])
        return Restored(
            picture=made,
            preview=preview,
            record=self._record(result.options) | dict(given.notes) | faces.record(len(portraits)),
            marking=options.marking,
            signature=self._signature(picture.path, options),
        )

    def _apart(self, faces: FoundFaces, width: int, height: int) -> list[Portrait]:
        """The faces to be restored by themselves, of a photo of so many pixels.

        None for an autoencoder that can see small photos larger: looked at, faces come out softer by themselves.
        """
        return [] if getattr(self.autoencoder, "zooms", False) else faces.portraits(width, height)

    def _portraits(
        self, faces: FoundFaces, photo: Picture | LargePicture, size: tuple[int, int], work: Work
    ) -> list[Placed]:
        """Faces restored by themselves, each on its place in a result of ``size`` (height, width); named regions lie
        on them.
        """
        portraits = self._apart(faces, photo.width, photo.height)
        if not portraits:
            return []
        factor, asked = latent_factor(self.autoencoder), faces.asked
        named = image.shares_of(asked, photo.width, photo.height, size, size, factor)
        options, found = image.portrait_options(asked), list[Placed]()
        for number, portrait in enumerate(portraits):
            expected = {} if isinstance(work, NoWork) else self._foretelling.expected(options, portrait.box[2:])
            told = work.within(PORTRAITS, number, len(portraits), expected)
            restored = self._restore(photo.cut(portrait.box), options, image.FoundFaces(options), work=told).picture
            placed = portrait.placed(restored, (photo.height, photo.width), size, asked.region_edge)
            found.append(placed if named is None else placed.beside(named, size))
        return found

    @torch.no_grad()
    def restore_file(
        self,
        source: str | Path,
        target: str | Path,
        options: RestoreOptions | None = None,
        *,
        preview: Path | None = None,
        record: Mapping[str, str] = MappingProxyType({}),
        on_step: StepCallback | None = None,
        on_preview: Callable[[], None] | None = None,
        on_work: Callable[[Reached], None] | None = None,
        **overrides: Any,
    ) -> dict[str, str]:
        """Restore from file to file. A large picture's pixels stay on disk, so memory does not bound its size.

        Args:
            source: the picture.
            target: the result, replaced if there is one; it is written whole or not at all.
            options: everything there is to set; None takes ``self.options(**overrides)``.
            preview: where the clean preview is written as soon as it exists.
            record: what else to keep in the result's metadata, unless the options want no marking.
            on_step: called after each sampling step; raise from it to cancel.
            on_preview: called before the sampling begins, when the preview, if wanted, has been written.
            on_work: told how far the work is, after each tile, step and band; raise from it to cancel.
            overrides: fields of ``RestoreOptions`` and ``preset``.

        Returns:
            The record of the result.

        Raises:
            ImageError: a file cannot be read, or not be written; the latter is found before any work where it can be.
            OSError: another took the room beside the target meanwhile (``Streaming.restore``).
        """
        source, target = Path(source), Path(target)
        unscaled = options is None and overrides.get("scale") is None
        options = self.options(**overrides) if options is None else options.replace(**overrides)
        if unscaled:
            options = _scaled(options, *image.read_size(source), target.suffix)
        sides = image.read_size(source)
        size = size_of(*sides, self._restorer(options))
        signature = self._signature(source, options)
        for written in filter(None, (target, preview)):  # what cannot be written is found before the work
            image.check_target(written, (size.output_height, size.output_width))
            if signature is not None:
                signature.check(written)
        options, faces = image.with_faces(options, source)
        work = self._foretelling.work(options, sides, on_work, self._apart(faces, *sides))
        input_hash = {"source_sha256": file_hash(source)}
        preview_record = self._preview_record(options) | input_hash if preview and options.marking else None

        def previewed() -> None:
            work.previewed()
            if on_preview is not None:
                on_preview()

        if is_large(size, options):
            self._prepare(options)
            restorer = replace(self._planned(options, size.padded_width, size.padded_height), work=work)
            with self._at_work(), self._reporting(options, on_step) as report:
                streaming = Streaming(
                    restorer=restorer,
                    device=self._execution_device,
                    conditions=lambda: self.embed_words(options, 1),
                    noise=SampleNoise([options.seed]),
                    preview=preview,
                    on_step=report,
                    on_preview=previewed,
                    preview_record=preview_record,
                    signature=signature,
                    faces=lambda photo, size: self._portraits(faces, photo, size, work),
                )

                def about_result(used: RestoreOptions, num_portraits: int) -> dict[str, str]:
                    return self._record(used) | input_hash | faces.record(num_portraits) | dict(record)

                about = streaming.restore(source, target, about_result)
            self._foretelling.keep(work, options, sides)
            return about

        def show(found: Picture) -> None:
            if preview is not None:
                image.write(found, preview, record=preview_record, source_type=image.PREVIEWED, signature=signature)
            previewed()

        wanted = preview is not None or on_preview is not None
        picture = image.read(source, salvage=options.salvage)
        restored = self._restore(picture, options, faces, on_step, show if wanted else None, work)
        restored = replace(restored, record=restored.record | input_hash | dict(record))
        restored.save(target)
        work.at(WRITING, 1.0)
        self._foretelling.keep(work, options, sides)
        return restored.record

    @property
    def _foretelling(self) -> Foretelling:
        costs = self._costs() if self.source is None else self._kept_costs
        return Foretelling(costs=costs, device=self._execution_device.type, first_models=self.first_folder)

    @property
    def _kept_costs(self) -> KeptCosts:
        """Of the folder, on the device of now; a batch asks before each picture and after it."""
        assert self.source is not None
        device = self._execution_device.type
        if device not in self._kept:
            self._kept[device] = KeptCosts(self.source, self.networks, device)
        return self._kept[device]

    @cached_property
    def _kept(self) -> dict[str, KeptCosts]:
        return {}

    def glimpses(
        self, source: str | Path | Picture, options: RestoreOptions, show: Callable[[Picture], None]
    ) -> StepCallback:
        """What ``on_step`` may be given to show small pictures of what comes, after some of the steps.

        Args:
            source: the picture, or picture file, that is restored.
            options: with which.
            show: given each; none for the last step, whose picture is the result.
        """
        size, frame = image.read_frame(source)
        multiple = size_multiple(self.autoencoder)
        toning = cache(partial(image.read_toning, source, GLIMPSE, salvage=options.salvage))
        return StepPreviews(
            self.autoencoder,
            lambda small: show(
                image.glimpsed(small, size, frame, options, multiple, None if options.reference_quirks else toning())
            ),
        )

    @torch.no_grad()
    def preview(self, picture: PictureLike, options: RestoreOptions | None = None, **overrides: Any) -> Picture:
        """The clean preview alone, at the size that the result would have: no sampling, so within seconds.

        Args:
            picture: a file path, a PIL image, or a ``Picture``.
            options: as for restoring; of these the sizes and tiles matter.
            overrides: fields of ``RestoreOptions`` and ``preset``.
        """
        options = self.options(**overrides) if options is None else options.replace(**overrides)
        given = self.fitted(image.as_picture(picture, salvage=options.salvage), options)
        return given.finish(self.preview_pixels(given.pixels[None], options, given.enlargement)[0])

    @torch.no_grad()
    def preview_crop(self, source: str | Path, target: str | Path, crop: Crop, options: RestoreOptions) -> None:
        """Write the clean preview of a part of a photo, a PNG, as that part of the whole's would be.

        An autoencoder that normalises over all that it sees makes the part by its own means.

        Args:
            source: the photo's file.
            target: a file in a folder that has room for the photo's pixels.
            crop: the part; its surroundings are read with it.
            options: the sizes and tiles matter; without ``first`` and ``reference_quirks``.

        Raises:
            ImageError: as ``image.read`` and ``image.write``.
            OptionError: the part is not all within the photo.
        """
        source, target = Path(source), Path(target)
        with image.open_large(source, target.parent, salvage=options.salvage) as picture:
            crop.check_within(picture.width, picture.height)
            preview = partial(self.preview_pixels, options=options)
            made = cropped_preview(picture, crop, options, size_multiple(self.autoencoder), preview)
        record = self._preview_record(options) | {"source_sha256": file_hash(source), "crop": str(crop)}
        image.write(
            made,
            target,
            record=record if options.marking else None,
            source_type=image.PREVIEWED,
            signature=self._signature(source, options),
        )

    def fitted(self, picture: Picture, options: RestoreOptions) -> image.Fitted:
        """At working size; where it is larger than the photo, by the model that acts first."""
        return image.fitted(picture, options, size_multiple(self.autoencoder), self._first(options))

    def _first(self, options: RestoreOptions) -> First | None:
        """The model that acts first, open; None where none is asked for."""
        if not options.first:
            return None
        return open_first(first_file(options.first, self.first_folder), self._execution_device)

    @torch.no_grad()
    def restore_pixels(
        self,
        pixels: Tensor,
        options: RestoreOptions,
        *,
        conditions: Conditions | None = None,
        noise: NoiseSource | None = None,
        on_step: StepCallback | None = None,
        on_preview: Callable[[Tensor], None] | None = None,
        work: Work | None = None,
        mask: Tensor | None = None,
        shares: Tensor | None = None,
        enlargement: float | None = None,
    ) -> RestoredPixels:
        """Restore tensors of working size; ``Restorer.restore`` tells more.

        Args:
            pixels: (B, 3, H, W) in [-1, 1], H and W multiples of four latent pixels.
            options: everything there is to set; ``memory`` plans the tiles for one picture.
            conditions: finished text conditioning of the batch; None embeds the words of ``options``.
            noise: None takes ``options.seed`` for every sample, so that each is what it would be alone.
            on_step: called after each sampling step.
            on_preview: shown the clean preview before the sampling begins; it must leave it as it is.
            work: told of every tile and step.
            mask: (H, W) in [0, 1], how much of ``blend`` there is; None takes ``blend_mask`` for all of the pixels.
            shares: (R, h, w) in [0, 1], of each latent pixel what the regions with dials have; None takes those of
                ``region`` for all of the pixels. Whose pixels stay is no matter of these.
            enlargement: how many times larger they are than the photo that they show; None takes ``scale``.
        """
        self._prepare(options)
        height, width = pixels.shape[-2:]
        frame = options, width, height, (height, width), (height, width)
        shares = image.shares_of(*frame, latent_factor(self.autoencoder)) if shares is None else shares
        restorer = replace(
            self._planned(options, width, height, shares, enlargement),
            work=work or NoWork(),
            mask=image.mask_of(*frame) if mask is None else mask,
            shares=shares,
        )
        place = self._execution_device
        given = None if conditions is None else conditions.to(place)
        with self._at_work(), self._reporting(options, on_step) as report:
            return restorer.restore(
                pixels.to(place),
                lambda: given or self.embed_words(options, len(pixels)),
                noise or SampleNoise([options.seed] * len(pixels)),
                report,
                on_preview,
            )

    @torch.no_grad()
    def preview_pixels(
        self,
        pixels: Tensor,
        options: RestoreOptions,
        enlargement: float | None = None,
        whole: tuple[int, int] | None = None,
    ) -> Tensor:
        """The clean preview of (B, 3, H, W) in [-1, 1]: what a captioner reads, within seconds (paper section 3.1).

        ``enlargement`` is as ``restore_pixels`` takes it; ``whole`` is (height, width) of what they are a part of.
        """
        restorer = self._planned(options, pixels.shape[-1], pixels.shape[-2], enlargement=enlargement)
        restorer = replace(restorer, whole=whole)
        with self._at_work():
            return restorer.decode(restorer.encode_degraded(pixels.to(self._execution_device)))

    def _prepare(self, options: RestoreOptions) -> None:
        """What options ask of the networks; and whether these are such as they are for, told once."""
        self.use_loras(split_loras(options.lora))
        sentence = mismatch(options, self.distilled) if self.source is not None or self.originals else None
        if sentence is not None and sentence not in self._told:
            self._told.add(sentence)
            warnings.warn(sentence, stacklevel=3)

    @cached_property
    def _told(self) -> set[str]:
        return set()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Around the work of the networks: whatever comes of it, those that are offloaded leave the device after it.

        Raises:
            OutOfMemoryError: memory ran out, also where no smaller tiles help.
        """
        try:
            with naming_lack_of_memory("in restoring", ADVICE):
                yield
        finally:
            self.maybe_free_model_hooks()

    @contextmanager
    def _reporting(self, options: RestoreOptions, on_step: StepCallback | None) -> Iterator[StepCallback]:
        """A progress bar over the steps: what moves it on and tells the caller."""
        with self.progress_bar(total=noise_schedule(options).num_steps) as bar:

            def report(step: Step) -> None:
                bar.update()
                if on_step is not None:
                    on_step(step)

            yield report

    def _planned(
        self,
        options: RestoreOptions,
        width: int,
        height: int,
        shares: Tensor | None = None,
        enlargement: float | None = None,
    ) -> Restorer:
        """What restores at this working size in the memory that there is, as ``supir plan`` says it.

        Raises:
            OutOfMemoryError: not even the smallest tiles that make sense fit into ``memory``.
        """
        room = self.room() if options.memory is None else options.memory * GIGABYTE
        if room is None:
            return self._restorer(options, enlargement=enlargement)
        accelerator = self._execution_device.type != "cpu"
        offload = "auto" if self.chooses_offload else self.offload
        extras = Extras(shares=shares, first=self._first(options), enlargement=enlargement)
        where: dict[str, Any] = {"memory": room, "accelerator": accelerator, "extras": extras}
        passes = picked(self._costs(), options, width, height, **where, offload=offload)
        if passes.peak > room and options.memory is not None:
            raise OutOfMemoryError(passes.lacking(room))
        self.offload_as_chosen(passes.offload)
        return self._restorer(passes.options, together=passes.together, enlargement=enlargement)

    def _costs(self) -> Costs:
        networks = {name: part for name, part in self.components.items() if isinstance(part, nn.Module)}
        kinds = tuple(str(networks[name].dtype) for name in ("autoencoder", "unet") if name in networks)
        if kinds not in self._traced:
            self._traced[kinds] = Costs(on_meta(networks))
        return self._traced[kinds]

    @cached_property
    def _traced(self) -> dict[tuple[str, ...], Costs]:
        """Costs by the networks' arithmetic, which may become wider."""
        return {}

    def _restorer(
        self, options: RestoreOptions, *, together: bool = True, enlargement: float | None = None
    ) -> Restorer:
        keep_from_overflow(self.autoencoder)
        return Restorer(
            autoencoder=self.autoencoder,
            unet=self.unet,
            adaptor=self.adaptor,
            options=options,
            widen=lambda: widen_networks(self.components, self._execution_device.type),
            release=self.release,
            together=together,
            last=self.last_encodings,
            enlargement=enlargement,
        )

    def embed_words(self, options: RestoreOptions, batch: int) -> Conditions:
        """Embed the prompt, or one a tile, with its quality words, and the negative prompt; once for the batch."""
        towers = TextTowers(
            tokenizer=self.tokenizer,
            tokenizer_2=self.tokenizer_2,
            text_encoder=self.text_encoder,
            text_encoder_2=self.text_encoder_2,
            device=self._execution_device,
        )
        return embed(towers, options, batch, self.unet.config.addition_time_embed_dim)

    def _record(self, options: RestoreOptions) -> dict[str, str]:
        """What was done, for the metadata of the result: enough to do it again."""
        positive, negative = whole_prompts(options)
        chosen = {name: value for name, value in asdict(options).items() if name != "marking"}
        return {
            "software": f"supir {__version__}",
            **self.identity,
            **identity_of_first(options.first, self.first_folder),
            "seed": str(options.seed),
            "prompt": " | ".join(positive),
            "negative_prompt": negative,
            "options": json.dumps(chosen, sort_keys=True),
            "notice": NOTICE,
        }

    def _signature(self, source: Path | None, options: RestoreOptions) -> image.Signature | None:
        return image.Signature(self.signing, source) if self.signing and options.marking and source else None

    def _preview_record(self, options: RestoreOptions) -> dict[str, str]:
        """The same of the clean preview, which hears no words and no seed."""
        found = self._record(options)
        unheard = ("seed", "prompt", "negative_prompt", "adapters")
        return {"made": PREVIEW, **{name: value for name, value in found.items() if name not in unheard}}
