"""16 bits: finite, and close to float32, for several kinds of pictures and scales; whatever the weights are."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supir.image import read
from supir.models.adaptor import SupirAdaptor
from supir.models.connectors import ZeroCrossAttention, ZeroSFT
from supir.models.unet import SupirUNet
from supir.pipeline import SupirPipeline
from supir.restoration.denoiser_network import GuidedNetwork
from supir.restoration.finite import WiderDtypeWarning

EXAMPLE = Path(__file__).parents[1] / "examples" / "photo.jpg"
SIDE = 64
HALVES = (torch.float16, torch.bfloat16)


def decibels(found: Tensor, exact: Tensor) -> Tensor:
    """PSNR of each picture of a batch over the range that the exact ones have."""
    spread = exact.flatten(1).amax(1) - exact.flatten(1).amin(1)
    return 20 * torch.log10(spread.clamp(min=1)) - 10 * torch.log10((found - exact).square().flatten(1).mean(1))


def kinds_of_pictures() -> Tensor:
    """(12, 3, SIDE, SIDE): flat grey, noise, edges as of print, a photo; each as enlarged by 1, 2 and 4."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, SIDE, SIDE, generator=generator) * 2 - 1
    print_ = (torch.rand(1, SIDE // 2, SIDE // 8, generator=generator) > 0.5).float() * 2 - 1
    edges = print_.repeat_interleave(2, 1).repeat_interleave(8, 2).expand(3, -1, -1)
    photo = read(EXAMPLE).rgb[:, 40 : 40 + SIDE, 60 : 60 + SIDE]
    given = torch.stack([torch.full_like(noise, 0.1), noise, edges, photo])
    sizes = [given[..., : SIDE // scale, : SIDE // scale] for scale in (1, 2, 4)]
    return torch.cat([F.interpolate(each, (SIDE, SIDE), mode="bicubic").clamp(-1, 1) for each in sizes])


@pytest.fixture(scope="module", params=[4.0, pytest.param(2.0, marks=pytest.mark.slow)])
def enlargement(request: pytest.FixtureRequest) -> float:
    """What E_dr takes the pictures for: one that is enlarged twice it sees larger, then again."""
    return float(request.param)


@pytest.fixture(scope="module")
def exact(enlargement: float) -> Tensor:
    return bundled(torch.float32, enlargement)[0]


def bundled(dtype: torch.dtype, enlargement: float) -> tuple[Tensor, SupirPipeline]:
    pipeline = SupirPipeline.from_pretrained(dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    options = pipeline.options(num_steps=2, text_guidance=2.0)  # from the preview and in both branches
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WiderDtypeWarning)
        return pipeline.restore_pixels(kinds_of_pictures(), options, enlargement=enlargement).pixels, pipeline


@pytest.mark.parametrize("dtype", HALVES)
def test_the_bundled_model_is_finite_and_close_to_float32(
    exact: Tensor, enlargement: float, dtype: torch.dtype
) -> None:
    """Also in float16, in which it may not bear to be run: then it goes on in a type that it bears, and says so."""
    found, pipeline = bundled(dtype, enlargement)
    assert found.isfinite().all()
    assert float(decibels(found, exact).min()) > 30
    if pipeline.unet.dtype is not dtype:
        assert str(dtype).removeprefix("torch.") not in pipeline.config.dtypes.split(", ")


@pytest.fixture(scope="module")
def full_width() -> tuple[SupirUNet, SupirAdaptor]:
    """UNet and adaptor with SDXL's widths and the real connectors, and as few layers as there can be."""
    few = {"layers_per_block": 1, "transformer_layers_per_block": (1, 1, 1), "cross_attention_dim": 64}
    few |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 64}
    with torch.device("meta"):
        networks = SupirUNet(**few), SupirAdaptor(**few)
    for network in networks:
        filled(network)
    return networks


def filled(network: nn.Module) -> None:
    """Weights that keep what goes through near one, from one short stretch of noise: drawing so many takes seconds."""
    stretch = torch.randn(1_000_003, generator=torch.Generator().manual_seed(1))
    network.to_empty(device="cpu").eval()
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
        times = -(-parameter.numel() // len(stretch))
        noise = stretch.repeat(times)[: parameter.numel()].view_as(parameter)
        parameter.data.copy_(noise / fan_in**0.5)
    for norm in network.modules():
        if isinstance(norm, (nn.GroupNorm, nn.LayerNorm)):
            norm.weight.data.add_(1)


@pytest.mark.slow
@torch.no_grad()
def test_full_width_networks_are_finite_and_close_to_float32(full_width: tuple[SupirUNet, SupirAdaptor]) -> None:
    generator = torch.Generator().manual_seed(2)
    x, hint = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    condition = {"tokens": torch.randn(1, 4, 64, generator=generator), "control": hint}
    condition["vector"] = torch.randn(1, 64, generator=generator)
    given = x, torch.tensor([500.0]), torch.tensor([5.0]), condition
    unet, adaptor = full_width
    network = GuidedNetwork(unet=unet, adaptor=adaptor, control_scales=[torch.ones_like])
    exact = network(*given)
    for dtype in HALVES:
        for part in full_width:
            nn.Module.to(part, dtype)
        found = network(*given)
        assert found.isfinite().all()
        assert float(decibels(found, exact)) > 30


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [1.0, 1000.0])
@torch.no_grad()
def test_full_width_connectors_are_finite_and_close_to_float32(dtype: torch.dtype, size: float) -> None:
    """The widest of SDXL's, of small and of large features, at full and at part strength."""
    control, skip, decoder = (torch.randn(1, 1280, 4, 4, generator=torch.Generator().manual_seed(s)) for s in range(3))
    for connector, given in (
        (ZeroSFT(1280, 1280, 1280), (control * size, skip * size, decoder * size)),
        (ZeroCrossAttention(1280, 1280), (control * size, decoder * size)),
    ):
        filled(connector)
        for strength in (1.0, torch.tensor([0.5])):
            exact = nn.Module.to(connector, torch.float32)(*given, strength)
            narrow = nn.Module.to(connector, dtype)(*(each.to(dtype) for each in given), strength)
            assert narrow.isfinite().all()
            assert float(decibels(narrow.float(), exact)) > 30
