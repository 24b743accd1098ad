"""One restoration on tensors: encode, preview, anchor, sample, decode, fix the colours (reference section 8)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ParamSpec, overload

from torch import Tensor

from supir.errors import OptionError
from supir.models.norms import shared_group_statistics
from supir.options import RestoreOptions
from supir.prompts import split_prompts
from supir.restoration import color
from supir.restoration.backoff import TileBackoff, smaller_vae_tile, smallest_tile
from supir.restoration.denoiser_network import Conditions
from supir.restoration.encoding import Kept, LastEncodings
from supir.restoration.finite import check_latents, finite_at_first, finite_at_last, not_widened
from supir.restoration.regions import Places
from supir.restoration.schedules import noise_schedule, number_of_branches, number_of_tiles
from supir.restoration.stack import stacked
from supir.restoration.work import ANCHOR, DECODING, ENCODING, PREVIEW, NoWork, Work
from supir.sampling.noise import NoiseSource
from supir.sampling.sigmas import Schedule, initial_latent
from supir.sampling.solvers import Denoiser, Step, StepCallback, dpmpp_2m, edm_euler, lcm
from supir.tensors.arrays import ArrayLike, MemmapArray
from supir.tensors.tiling import Layout, blended, mosaic, reference_gaussian, tiled

if TYPE_CHECKING:  # a plan needs none of the networks, and diffusers takes seconds
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    from supir.models.adaptor import SupirAdaptor
    from supir.models.unet import SupirUNet

P = ParamSpec("P")
Store = Callable[[tuple[int, ...]], MemmapArray]
"""Makes a place for (B, C, H, W) outside of memory."""

COMMON_NORMS_TILE = 384
"""Pixels of the smallest autoencoder tile whose norms are made to agree: a smaller mosaic would have too many cuts."""
LARGE = 1_050_000
"""Pixels of a photo beyond which E_dr sees it at half of what would be best, as that takes a fourth of the time."""
LATENT_ALIGN = 4
"""The UNet halves a latent twice: its tiles start and end on multiples of this."""


@dataclass(frozen=True, kw_only=True)
class RestoredPixels:
    """What one restoration yields: pixels (B, 3, H, W) near [-1, 1], latents (B, C, h, w) scaled to unit variance."""

    pixels: Tensor
    preview: Tensor
    lq_latent: Tensor
    anchor: Tensor
    latent: Tensor
    options: RestoreOptions
    """With the tiles really used: smaller than those asked for where memory ran out."""


@dataclass(frozen=True, kw_only=True)
class Restorer:
    """The three networks and how to use them; ``restore`` is the whole way, the other methods are its parts."""

    autoencoder: Any
    """encode, encode_degraded and decode; latents are scaled by its ``config.scaling_factor``."""
    unet: SupirUNet
    adaptor: SupirAdaptor
    options: RestoreOptions
    widen: Callable[[], None] = not_widened
    """Lets the networks calculate in a type that reaches further, or raises ``NotFiniteError``."""
    release: Callable[..., None] = lambda *networks: None
    """Told of networks that are not needed for a while: where they come and go, they may go."""
    together: bool = True
    """Whether both branches of text guidance go through the networks in one call, or one after the other."""
    last: LastEncodings | None = None
    """Where latents and preview are kept for the next version of the same photo."""
    work: Work = field(default_factory=NoWork)
    """Told of every tile that is done."""
    mask: Tensor | None = None
    """(H, W) in [0, 1], where ``blend`` of the options acts; None is everywhere."""
    shares: Tensor | None = None
    """(R, h, w) in [0, 1], how much of each latent pixel each region with dials has; None where there are none."""
    enlargement: float | None = None
    """How many times larger the pixels are than the photo that they show; None is ``scale`` of the options."""
    whole: tuple[int, int] | None = None
    """(height, width) at working size of what the pixels are a part of; None: they are all of it."""

    @cached_property
    def backoff(self) -> TileBackoff:
        """The options in use: their tiles become smaller where memory runs out."""
        return TileBackoff(self.options, together=self.together)

    def restore(
        self,
        pixels: Tensor,
        conditions: Callable[[], Conditions],
        noise: NoiseSource,
        on_step: StepCallback | None = None,
        on_preview: Callable[[Tensor], None] | None = None,
    ) -> RestoredPixels:
        """Restore (B, 3, H, W) in [-1, 1], both sides a multiple of ``size_multiple``.

        ``on_preview`` is shown the clean preview when it is made, and must leave it as it is. ``conditions`` is called
        after that, when text towers may take the autoencoder's place in memory.
        ``noise`` is drawn for the anchor's posterior (with quirks), for the initial latent, then as the solver asks.

        Raises:
            OptionError: ``tile_prompts`` are not as many as the tiles.
            OutOfMemoryError, NotFiniteError: smaller tiles, or a wider type, do not help.
        """
        self.check_tile_prompts(pixels)
        how = self.options, self.autoencoder.dtype, self.enlargement
        kept = None if self.last is None else self.last.once(pixels, *how)
        once = kept or Kept({})
        parts = {"lq_latent": ENCODING, "preview": PREVIEW, "anchor": ANCHOR}
        self.work.skip([parts[name] for name in once.parts])
        lq_latent = once("lq_latent", lambda: self.encode_degraded(pixels))
        preview = once("preview", lambda: self.decode(lq_latent))
        if on_preview is not None:
            on_preview(preview)
        anchor = once("anchor", lambda: self.anchor(preview, noise))
        latent = self.restored_latent(lq_latent, anchor, conditions, noise, on_step)
        options = self.options
        restored = color.fix(
            self.decode(latent, part=DECODING),
            preview,
            options.color_fix,
            strength=options.color_strength,
            overwrite=True,
        )
        restored = color.blended(restored, preview, options.blend, self.mask)
        return RestoredPixels(
            pixels=restored,
            preview=preview if kept is None else preview.clone(),  # what is handed out may be used up
            lq_latent=lq_latent,
            anchor=anchor,
            latent=latent,
            options=self.backoff.options,
        )

    def check_tile_prompts(self, pixels: ArrayLike) -> None:
        """Raise OptionError unless there is a prompt for each tile of the picture, where there are any."""
        prompts, factor = split_prompts(self.options.tile_prompts), self.latent_factor
        rows, columns = self.latent_layout()(pixels.shape[-2] // factor, pixels.shape[-1] // factor, Fraction(1))
        if prompts and len(prompts) != len(rows) * len(columns):
            raise OptionError(
                f"tile_prompts holds {len(prompts)} prompts, and the picture has {len(rows) * len(columns)} tiles:"
                f" {len(rows)} rows of {len(columns)}; give one for each, divided by |, or change tile"
            )

    def anchor(self, preview: ArrayLike, noise: NoiseSource) -> Tensor:
        """The scaled latent of the preview by the plain encoder: the posterior's mode, with quirks a sample of it."""
        posterior = self.encode(preview, degraded=False)
        if self.options.reference_quirks:
            return (posterior.mean + posterior.std * noise(posterior.mean)) * self.scaling
        return posterior.mode() * self.scaling

    def restored_latent(
        self,
        lq_latent: Tensor,
        anchor: Tensor,
        conditions: Callable[[], Conditions],
        noise: NoiseSource,
        on_step: StepCallback | None,
    ) -> Tensor:
        """The restored latent: from noise, or from the noised anchor, down the schedule of the options."""
        options = self.options
        schedule = noise_schedule(options)
        self.release(self.autoencoder)
        denoise = self.denoiser(lq_latent, anchor, conditions, schedule)
        start = initial_latent(noise(lq_latent), schedule.sigmas, None if options.start_sigma is None else anchor)

        def stepped(step: Step) -> None:
            if on_step is not None:
                on_step(step)
            self.work.stepped((step.index + 1) / step.num_steps)

        latent = finite_at_last(self.sample(denoise, start, schedule, noise, stepped), self.unet.dtype)
        self.release(self.unet, self.adaptor)
        return latent

    def denoiser(
        self, lq_latent: Tensor, anchor: Tensor, conditions: Conditions | Callable[[], Conditions], schedule: Schedule
    ) -> Denoiser:
        """``(x, sigma) -> denoised``: in smaller tiles where memory runs out, in a wider type where numbers do."""

        def build() -> Denoiser:
            return stacked(self, lq_latent, anchor, words, schedule)

        words = conditions() if callable(conditions) else conditions
        stack = build()
        longest = max(lq_latent.shape[-2:]) * self.latent_factor
        smaller = partial(
            self.backoff.smaller_calls,
            longest=longest,
            branches=number_of_branches(self.options, schedule),
            smallest=self.smallest_tile,
        )

        def rebuild() -> None:
            nonlocal stack
            stack = build()  # with caches of its own, since the tiles are others

        def widen() -> None:
            nonlocal words
            check_latents(self.autoencoder.dtype, lq_latent, anchor)
            self.widen()
            words = conditions() if callable(conditions) else conditions
            rebuild()

        return finite_at_first(lambda x, sigma: self.backoff.run(lambda: stack(x, sigma), smaller, rebuild), widen)

    def sample(
        self,
        denoise: Denoiser,
        start: Tensor,
        schedule: Schedule,
        noise: NoiseSource,
        on_step: StepCallback | None = None,
    ) -> Tensor:
        """Walk the latent ``start`` down the schedule with the chosen solver."""
        options = self.options
        if options.solver == "edm_euler":
            return edm_euler(denoise, start, schedule, noise, s_noise=options.s_noise, on_step=on_step)
        if options.solver == "lcm":
            return lcm(denoise, start, schedule, noise, s_noise=options.s_noise, on_step=on_step)
        return dpmpp_2m(
            denoise,
            start,
            schedule,
            noise,
            eta=options.fresh_share,
            s_noise=options.s_noise,
            noise_on_first_step=options.solver != "reference_dpmpp_2m",
            on_step=on_step,
        )

    def restore_large(
        self,
        pixels: ArrayLike,
        conditions: Callable[[], Conditions],
        noise: NoiseSource,
        store: Store,
        on_step: StepCallback | None = None,
        on_preview: Callable[[ArrayLike], None] | None = None,
    ) -> Iterator[Tensor]:
        """As ``restore``, of a picture whose pixels do not fit into memory: bands (B, 3, rows, W) from top to bottom.

        Only latents are in memory as a whole. ``store`` makes the places where preview and result are kept. The public
        code's quirks are not for this: their tiles need the whole at once.
        """
        self.check_tile_prompts(pixels)
        lq_latent = self.encode_degraded(pixels)
        preview = self.decode(lq_latent, store)
        if on_preview is not None:
            on_preview(preview)
        anchor = self.anchor(preview, noise)
        latent = self.restored_latent(lq_latent, anchor, conditions, noise, on_step)
        options, decoded = self.options, self.decode(latent, store, part=DECODING)
        found = color.fixed_bands(decoded, preview, options.color_fix, strength=options.color_strength)
        return self._blended_bands(found, preview)

    def _blended_bands(self, found: Iterator[Tensor], preview: ArrayLike) -> Iterator[Tensor]:
        top, whole = 0, slice(0, preview.shape[-1])
        for band in found:
            rows = slice(top, top + band.shape[-2])
            top = rows.stop
            if self.options.blend == 0:
                yield band
                continue
            part = preview[..., rows, whole]
            yield color.blended(band, part, self.options.blend, None if self.mask is None else self.mask[rows])

    def encode_degraded(self, pixels: ArrayLike) -> Tensor:
        """The scaled LQ latent of degraded pixels: the mode of the robust encoder's posterior."""

        def latent(detail: float | None) -> Tensor:
            return self.encode(pixels, degraded=True, detail=detail).mode() * self.scaling

        return latent(self.options.detail) if self.places is None else self.places.detailed(latent)

    @cached_property
    def places(self) -> Places | None:
        """The regions with dials of their own."""
        if self.shares is None:
            return None
        return Places(shares=self.shares, options=self.options, own_ends=self._has_detail)

    @property
    def _has_detail(self) -> bool:
        return bool(getattr(self.autoencoder, "has_detail", False))

    def encode(self, pixels: ArrayLike, *, degraded: bool, detail: float | None = None) -> DiagonalGaussianDistribution:
        """Posterior of the unscaled latent, in tiles where the picture is larger than one."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        kind, factor = self.autoencoder.dtype, self.latent_factor
        encode = self.autoencoder.encode_degraded if degraded else self.autoencoder.encode
        zoom = self.zoom(*pixels.shape[-2:]) if degraded else 1
        if degraded and detail is not None and self._has_detail:
            encode = partial(encode, detail=detail)
        if zoom != 1:
            encode = partial(encode, zoom=zoom)

        def of_part(part: Tensor) -> Tensor:
            moments: Tensor = encode(part.to(kind)).latent_dist.parameters
            return moments

        def moments() -> Tensor:
            if self._in_lock_step and isinstance(pixels, Tensor):
                found: Tensor = self.autoencoder.encode_in_lock_step(
                    pixels.to(kind), self._vae_tile(1), degraded=degraded
                )
            else:
                reach = "degraded_halo" if degraded else "halo"
                alike = self._with_common_norms(of_part, pixels, 1, reach)
                layout = self.pixel_layout(1, reach, zoom)
                counted = self.counted(alike, ENCODING if degraded else ANCHOR, number_of_tiles(layout, pixels))
                found = tiled(counted, layout, scale=Fraction(1, factor))(pixels)
            return found

        smaller = partial(smaller_vae_tile, longest=max(pixels.shape[-2:]))
        return DiagonalGaussianDistribution(self.backoff.run(moments, smaller).float())

    @overload
    def decode(self, latent: Tensor, *, part: str = PREVIEW) -> Tensor: ...

    @overload
    def decode(self, latent: Tensor, store: Store, *, part: str = PREVIEW) -> MemmapArray: ...

    def decode(self, latent: Tensor, store: Store | None = None, *, part: str = PREVIEW) -> Tensor | MemmapArray:
        """Pixels of a scaled latent, in tiles where the picture is larger than one; with ``store`` kept there."""
        latent = (latent / self.scaling).to(self.autoencoder.dtype)
        factor = self.latent_factor

        def pixels() -> Tensor | MemmapArray:
            if self._in_lock_step and store is None:
                found: Tensor = self.autoencoder.decode_in_lock_step(latent, self._vae_tile(factor) // factor)
                return found
            alike = self._with_common_norms(self._decoded, latent, factor, "halo")
            layout = self.pixel_layout(factor, "halo")
            counted = self.counted(alike, part, number_of_tiles(layout, latent))
            made: Tensor | MemmapArray = tiled(counted, layout, scale=factor, into=store)(latent)
            return made

        smaller = partial(smaller_vae_tile, longest=max(latent.shape[-2:]) * factor)
        whole = self.backoff.run(pixels, smaller)
        return whole.float() if isinstance(whole, Tensor) else whole

    def counted(self, run: Callable[P, Tensor], part: str, number: int) -> Callable[P, Tensor]:
        """``run``, each call of which is told to the work: so many make the part."""
        done = itertools.count(1)

        def counted(*args: P.args, **keywords: P.kwargs) -> Tensor:
            made = run(*args, **keywords)
            self.work.at(part, next(done) / number)
            return made

        return counted

    def _decoded(self, latent: Tensor) -> Tensor:
        pixels: Tensor = self.autoencoder.decode(latent).sample
        return pixels

    def _with_common_norms(
        self, run: Callable[[Tensor], Tensor], source: ArrayLike, unit: int, reach: str
    ) -> Callable[[Tensor], Tensor]:
        """``run``; tiles of ``source``, in units of so many pixels, are normalised alike where it sees all of one."""
        tile = self._vae_tile(unit) // unit
        one_tile = max(source.shape[-2:]) <= tile
        if one_tile or self._vae_tile(unit) < COMMON_NORMS_TILE or getattr(self.autoencoder, reach, None) is not None:
            return run  # nothing to agree on, or no good sample of it, or only its surroundings matter to a pixel
        return shared_group_statistics(run, mosaic(source, tile, align=max(self.latent_factor // unit, 1)))

    def _vae_tile(self, unit: int) -> int:
        """Of what is encoded, in units of one pixel, or of what is decoded, in those of the latent's."""
        options = self.backoff.options
        return options.vae_tile if unit == 1 or options.decoder_tile is None else options.decoder_tile

    @property
    def smallest_tile(self) -> int:
        """Pixels of the smallest tile for sampling that is made where memory lacks."""
        native = getattr(self.unet.config, "sample_size", None)
        return smallest_tile(self.options, native * self.latent_factor if isinstance(native, int) else None)

    @property
    def scaling(self) -> float:
        """Scaled latent over the autoencoder's own."""
        return float(self.autoencoder.config.scaling_factor)

    @property
    def latent_factor(self) -> int:
        """Pixels of the picture per pixel of the latent, along one side."""
        return latent_factor(self.autoencoder)

    @property
    def _in_lock_step(self) -> bool:
        """The public code's tiles hold the networks in lock step; they know SDXL's autoencoder only."""
        return self.options.reference_quirks and hasattr(self.autoencoder, "encode_in_lock_step")

    def latent_layout(self) -> Layout:
        """Tiles of the sampling, in pixels of the latent."""
        options, factor = self.backoff.options, self.latent_factor
        tile = max(options.tile // (factor * LATENT_ALIGN), 2) * LATENT_ALIGN
        if options.reference_quirks:
            overlap = tile // 2 if options.tile_overlap is None else options.tile_overlap // factor
            return reference_gaussian(tile, tile - overlap)
        overlap = tile // 4 if options.tile_overlap is None else options.tile_overlap // factor
        return blended(tile, min(overlap, tile // 2), align=LATENT_ALIGN)

    def zoom(self, height: int, width: int) -> int:
        """How many times larger E_dr sees a picture of so many pixels than it is: 1, 2 or 4.

        One that sees best what is enlarged four times (``ThinAutoencoder.zooms``) is given the photo so where that is
        asked for (``see_larger``), whatever its ``enlargement`` is: the pixels of its trunk are then the photo's. What
        is not enlarged takes twenty times as long so; of more than ``LARGE`` pixels it is enlarged twice there, five
        times as long. What is made smaller is sharp, and seen as it is.
        """
        height, width = self.whole or (height, width)
        enlarged = self.options.scale if self.enlargement is None else self.enlargement
        asked = self.options.see_larger and getattr(self.autoencoder, "zooms", False)
        if not asked or not 0.5**0.5 <= enlarged < 2**1.5:
            return 1
        return 4 if enlarged < 2**0.5 and height * width <= LARGE else 2

    def pixel_layout(self, unit: int, reach: str, zoom: int = 1) -> Layout:
        """Tiles of the autoencoder, counted in ``unit`` pixels.

        An autoencoder that knows its halo, the pixels beyond which nothing influences a pixel, is tiled exactly;
        ``reach`` is that property's name. For others a quarter of the tile overlaps; half of that is computed and
        dropped, half blended. A network that goes over the picture again, so many times larger (``zoom``), reaches half
        as far each time.
        """
        factor = self.latent_factor
        tile = max(self._vae_tile(unit) // factor, 8) * factor
        halo = getattr(self.autoencoder, reach, None)
        if halo is not None:
            restoring = (halo - self.autoencoder.halo) // factor
            halo += math.ceil(restoring * (1 - 1 / zoom)) * factor
            tile, overlap, fade = max(tile, 4 * halo), 2 * halo, 0
        else:
            overlap, fade = tile // 4, tile // 8
        return blended(tile // unit, overlap // unit, fade=fade // unit, align=max(factor // unit, 1))


def latent_factor(autoencoder: Any) -> int:
    """Pixels of the picture per pixel of the latent, along one side."""
    return int(2 ** (len(autoencoder.config.block_out_channels) - 1))


def size_multiple(autoencoder: Any) -> int:
    """What both sides of the working size must be a multiple of."""
    return latent_factor(autoencoder) * LATENT_ALIGN
