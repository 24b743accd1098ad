"""All measures opened: those of other libraries against independent values, what is missing named, two protocols."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from evaluation.record_independent import PICTURES, damaged
from evaluation.test_metrics import tensor
from supir.errors import OptionError
from supir.evaluation import metrics
from supir.evaluation.fidelity import luma
from supir.evaluation.metrics import METRICS, open_measures, reduced
from supir.evaluation.niqe import niqe
from supir.tensors.gaussian import gaussian_means
from tiny import tiny_tokenizer

RECORDED = json.loads((Path(__file__).parent / "independent.json").read_text())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * bool(n)) for n, name in enumerate(PICTURES)]
)
@pytest.mark.parametrize("kind", ["clean", "blur", "noise", "jpeg"])
@pytest.mark.parametrize(("measure", "bound"), [("ms_ssim", 3e-3), ("vif", 1e-4)])
def test_torchmetrics_gives_what_sewar_gives(measure: str, bound: float, name: str, kind: str) -> None:
    """MS-SSIM: sewar takes the means of 2 x 2 pixels one pixel aside, across JPEG's blocks, hence the thousandths."""
    ready, _ = open_measures([measure])
    found = ready[measure](tensor(damaged(PICTURES[name](), kind)), tensor(PICTURES[name]()))
    assert found == pytest.approx(RECORDED[measure][f"{name} {kind}"], abs=bound)


@pytest.mark.parametrize("kind", ["blur", "noise", "jpeg"])
def test_ms_ssim_is_its_formula(kind: str) -> None:
    """Wang et al. 2003, equation 7, from windows of our own."""
    pair = [tensor(damaged(PICTURES["coffee"](), kind)), tensor(PICTURES["coffee"]())]
    planes = torch.stack([luma(pixels) for pixels in pair])
    expected = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        x, y = planes
        means = gaussian_means(torch.stack([x, y, x * x, y * y, x * y]), 11, 1.5)
        mean_x, mean_y, variance_x, variance_y = *means[:2], means[2] - means[0] ** 2, means[3] - means[1] ** 2
        likeness = (2 * (means[4] - mean_x * mean_y) + (0.03 * 255) ** 2) / (
            variance_x + variance_y + (0.03 * 255) ** 2
        )
        if scale == 4:
            likeness = likeness * (2 * mean_x * mean_y + 2.55**2) / (mean_x**2 + mean_y**2 + 2.55**2)
        expected *= float(likeness.mean()) ** weight
        planes = torch.nn.functional.avg_pool2d(planes[:, None], 2)[:, 0]
    ready, _ = open_measures(["ms_ssim"])
    assert ready["ms_ssim"](*pair) == pytest.approx(expected, abs=1e-4)


def test_every_measure_is_ready_or_says_what_it_needs(tmp_path: Path) -> None:
    ready, absent = open_measures()
    assert list({**ready, **absent}) == sorted(METRICS, key=lambda name: (name in absent, list(METRICS).index(name)))
    assert {"psnr", "ms_ssim", "vif", "niqe", "niqe_512"} <= ready.keys()
    assert all(
        "pip install" in why or "not installed" in why or "get it from" in why or "--fetch" in why
        for why in absent.values()
    )
    _, absent = open_measures(["clip_iqa", "clip_iqa_512"], tmp_path)
    assert "openai/clip-vit-base-patch16" in absent["clip_iqa"]
    with pytest.raises(OptionError, match="unknown measure 'lpisp'; there are psnr"):
        open_measures(["lpisp"])


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("ms_ssim", "torchmetrics"),
        ("vif", "torchmetrics"),
        ("musiq", "pyiqa"),
    ],
)
def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    real = metrics.find_spec
    monkeypatch.setattr(metrics, "find_spec", lambda asked: None if asked == package else real(asked))
    ready, absent = open_measures([name])
    assert not ready
    assert f"{package} is not installed" in absent[name]


def test_both_protocols() -> None:
    ready, _ = open_measures(["niqe", "niqe_512"])
    picture = torch.rand(3, 700, 900, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert reduced(picture, 512).shape == (3, 512, 658)
    assert reduced(picture, 701) is picture
    assert ready["niqe"](picture, None) == niqe(picture)
    assert ready["niqe_512"](picture, None) == niqe(reduced(picture, 512)) != niqe(picture)


def test_a_measure_against_an_original_wants_one() -> None:
    ready, _ = open_measures(["psnr"])
    with pytest.raises(OptionError, match="compares with an original"):
        ready["psnr"](torch.zeros(3, 8, 8), None)


def test_sizes_too_small_are_refused() -> None:
    ready, _ = open_measures(["ms_ssim", "vif"])
    for name, side in (("ms_ssim", 176), ("vif", 41)):
        picture = torch.rand(3, side, side) * 2 - 1
        assert math.isfinite(ready[name](picture, picture))
        with pytest.raises(OptionError, match=f"at least {side} a side"):
            ready[name](picture[:, 1:], picture[:, 1:])


def test_clip_iqa_from_a_folder(tmp_path: Path) -> None:
    """A real CLIP at tiny size, random weights: a probability, by hand from its features."""
    folder = tmp_path / "openai" / "clip-vit-base-patch16"
    small: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config=small | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id},
            vision_config=small | {"image_size": 32, "patch_size": 8},
            projection_dim=16,
        )
    ).eval()
    model.save_pretrained(folder)
    processor = CLIPProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer
    )
    processor.save_pretrained(folder)
    ready, absent = open_measures(["clip_iqa"], tmp_path)
    assert not absent
    picture = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(2)) * 2 - 1
    pixels = picture.add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    words = processor(text=["Good photo.", "Bad photo."], return_tensors="pt", padding=True)
    with torch.no_grad():
        image = model.get_image_features(**processor(images=[pixels], return_tensors="pt")).pooler_output
        text = model.get_text_features(**words).pooler_output
    good, bad = torch.nn.functional.cosine_similarity(image, text).tolist()
    expected = 1 / (1 + math.exp(100 * (bad - good)))
    assert ready["clip_iqa"](picture, None) == pytest.approx(expected, abs=1e-4)
    assert 0 < expected < 1
