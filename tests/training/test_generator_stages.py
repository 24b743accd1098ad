"""The restoring network and the generator: what they begin from, what learns, what each loss asks for."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from smoke_runs import make_materials, needed, smoke
from torch import Tensor

from supir.errors import OptionError
from supir.image import resize
from supir.models.restorers import HALO, DenseRestorer, RealEsrgan
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.options import PRESETS, restore_options
from supir.prompts import NEGATIVE_PROMPT
from supir.training.loop import Stage
from supir.training.runs import make_stage
from supir.training.stages.generator import presets_of
from supir.training.stages.restorer import (
    NUM_TEACHER_BLOCKS,
    Losses,
    begin_from,
    high_bands,
    kept_blocks,
    opposed,
)


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return needed(tmp_path_factory.mktemp("needed"))


def test_all_of_the_teachers_blocks_are_the_teacher(more: dict[str, dict[str, Any]]) -> None:
    """On an enlarged picture, of which the teacher sees the small one."""
    teacher, restorer = (network(23).double().requires_grad_(False) for network in (RealEsrgan, DenseRestorer))
    begin_from(restorer, teacher)
    torch.nn.init.constant_(restorer.conv_kept.bias, -100.0)  # keep nothing of the input
    small = torch.rand(1, 3, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    large = resize(small, 96, 96, limits=None)
    # Around a picture the teacher sees black and this network grey: so the first convolution is compared inside.
    inside = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    first = restorer.conv_in(F.pixel_unshuffle(large, 4))[inside]
    torch.testing.assert_close(first, teacher.conv_in(small / 2 + 0.5)[inside], rtol=0, atol=5e-3)
    theirs, own = teacher.state_dict(), restorer.state_dict()
    shared = [name for name in theirs if not name.startswith(("conv_in.", "conv_out."))]
    assert len(shared) == 2 * (23 * 15 + 4)
    assert all(torch.equal(own[name], theirs[name]) for name in shared)
    h = torch.randn(1, 64, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(restorer.conv_out(h), teacher.conv_out(h) * 2 - 1)


def test_kept_whole_the_picture_comes_back_as_it_was() -> None:
    restorer = DenseRestorer(1)
    torch.nn.init.constant_(restorer.conv_kept.bias, 100.0)
    picture = torch.rand(1, 3, 24, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(restorer(picture), picture)


def test_beyond_the_halo_next_to_nothing_is_seen() -> None:
    torch.manual_seed(0)
    restorer = DenseRestorer(2)
    picture = torch.rand(1, 3, 16, 2 * HALO + 64) * 2 - 1
    other = picture.clone()
    other[..., :16] = -other[..., :16]
    with torch.no_grad():
        apart = (restorer(picture) - restorer(other)).abs()[..., 16 + HALO :]
    assert apart.max() < 1 / 255


def test_the_high_bands_hold_what_the_mean_of_four_pixels_lacks() -> None:
    picture = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    means = F.avg_pool2d(picture, 2) * 2
    energy = high_bands(picture).square().sum() + means.square().sum()
    torch.testing.assert_close(energy, picture.square().sum())
    assert high_bands(F.interpolate(torch.rand(1, 3, 4, 4), scale_factor=2.0)).abs().max() < 1e-6


def _learned(stage: Stage, number: int = 2) -> set[str]:
    """The parameters that a step's loss moves."""
    assert stage.draw is not None
    samples = [stage.draw(np.random.default_rng((0, index)), index) for index in range(number)]
    named = {f"{c}.{n}": p for c, module in stage.modules.items() for n, p in module.named_parameters()}
    for name, parameter in named.items():
        parameter.requires_grad_(not stage.frozen(name))
    loss, values = stage.loss(samples, 0.5)
    loss.backward()
    assert all(torch.isfinite(torch.as_tensor(value)) for value in values.values())
    return {name for name, p in named.items() if p.grad is not None and p.grad.abs().max() > 0}


def test_restoring_network_decoder_and_opponent_learn(photographs: Path, more: dict[str, dict[str, Any]]) -> None:
    materials = make_materials(photographs, smoke("restorer", **more["restorer"]))
    learned = _learned(make_stage(materials))
    assert {name.split(".")[0] for name in learned} == {"autoencoder", "opponent"}
    parts = {name.split(".")[1] for name in learned if name.startswith("autoencoder")}
    assert parts == {"restorer", "decoder"}, "latents keep their meaning: the encoder is frozen"
    assert "autoencoder.restorer.conv_in.weight" in learned
    assert "autoencoder.restorer.conv_kept.weight" in learned


def test_the_plain_end_learns_pixels_alone_and_leaves_the_vivid_one(
    photographs: Path, more: dict[str, dict[str, Any]]
) -> None:
    options = smoke("restorer", **more["restorer"] | {"teacher_weight": 0.0, "adversarial_share": 0.0})
    plain = dataclasses.replace(options, plain_end=True, perceptual="", perceptual_weight=0.0)
    materials = make_materials(photographs, plain)
    restorer = materials.networks["autoencoder"].restorer
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(restorer(picture, 0.0), restorer(picture)), "it begins as a copy"
    stage = make_stage(materials)
    learned = _learned(stage)
    assert learned
    assert all(name.startswith("autoencoder.restorer.plain.") for name in learned)
    assert stage.draw is not None
    _, values = stage.loss([stage.draw(np.random.default_rng(0), 0)], 0.5)
    assert set(values) == {"l1"}


def test_detail_goes_evenly_from_the_plain_end_to_the_vivid_one() -> None:
    torch.manual_seed(0)
    restorer = DenseRestorer(2, plain_end=True).requires_grad_(False)
    picture = resize(torch.rand(1, 3, 8, 8) * 2 - 1, 32, 32)  # as soft as what is painted
    plain, vivid = restorer(picture, 0.0), restorer(picture, 1.0)
    assert not torch.allclose(plain, vivid, atol=1e-3)
    torch.testing.assert_close(restorer(picture, 0.25), 0.75 * plain + 0.25 * vivid)
    alone = DenseRestorer(2)
    assert torch.equal(alone(picture, 0.0), alone(picture)), "without a plain end there is no other"


def test_the_generator_learns_through_the_decoder_with_it(photographs: Path, more: dict[str, dict[str, Any]]) -> None:
    materials = make_materials(photographs, smoke("generator", negative_share=0.0, **more["generator"]))
    learned = _learned(make_stage(materials))
    assert {name.split(".")[0] for name in learned} == {"autoencoder", "unet", "adaptor", "opponent"}
    assert all(".decoder." in name for name in learned if name.startswith("autoencoder"))


def test_beside_a_frozen_prior_adaptor_and_connectors_learn_alone(
    photographs: Path, more: dict[str, dict[str, Any]]
) -> None:
    options = smoke("generator", negative_share=0.0, frozen_prior=True, start_sigma=0.57, **more["generator"])
    materials = make_materials(photographs, options)
    stage = make_stage(materials)
    learned = _learned(stage)
    assert {name.split(".")[0] for name in learned} == {"unet", "adaptor", "opponent"}
    assert all(name.startswith("unet.connectors.") for name in learned if name.startswith("unet."))
    prior = {name: p for name, p in materials.networks["unet"].named_parameters() if not name.startswith("connectors.")}
    assert all(p.grad is None for p in (*prior.values(), *materials.networks["autoencoder"].parameters()))
    assert stage.draw is not None
    _, values = stage.loss([stage.draw(np.random.default_rng(0), 0)], 0.5)
    assert "kept" not in values, "the decoder does not change"


def test_what_comes_out_takes_the_step_it_learned_under_every_preset() -> None:
    options = smoke("generator", start_sigma=0.57)
    before = {
        "all": {"tile": 512, "num_steps": 20},
        "fast": {"text_guidance": 3.0, "seed": 4},
        "unused": {"tile": "no"},
    }
    presets = presets_of(options, before)
    for name in PRESETS:
        found = restore_options(name, model_presets=presets)
        assert (found.num_steps, found.start_sigma, found.text_guidance, found.s_churn) == (1, 0.57, 1.0, 0.0)
        assert (found.solver, found.eta, found.control_scale) == ("edm_euler", None, 1.0)
        assert (found.text_guidance_start, found.restoration_guidance, found.tile) == (None, None, 512)
    assert restore_options("fast", model_presets=presets).seed == 4
    assert presets["unused"] == before["unused"]


def test_under_negative_words_alone_no_picture_is_asked_for(photographs: Path, more: dict[str, dict[str, Any]]) -> None:
    stage = make_stage(make_materials(photographs, smoke("generator", negative_share=0.9, **more["generator"])))
    assert stage.draw is not None
    drawn = [stage.draw(np.random.default_rng(index), index) for index in range(12)]
    poor = [sample for sample in drawn if sample.prompt == NEGATIVE_PROMPT]
    assert len(poor) >= 2
    _, values = stage.loss(poor[:2], 0.5)
    assert "l1" not in values
    assert values["negative"] > 0


def test_what_the_plain_end_made_is_to_stay_as_it_is(photographs: Path, more: dict[str, dict[str, Any]]) -> None:
    """Of a fixed share of the samples; else detail would no longer reach the faithful end."""
    materials = make_materials(photographs, smoke("generator", negative_share=0.0, **more["generator"]))
    own = {**materials.networks["autoencoder"].config, "dense_blocks": 1, "plain_end": True}
    coder = ThinAutoencoder(**{name: value for name, value in own.items() if not name.startswith("_")})
    stage = make_stage(dataclasses.replace(materials, networks=materials.networks | {"autoencoder": coder}))
    assert stage.draw is not None
    sample = stage.draw(np.random.default_rng(0), 0)
    _, plain = stage.loss([dataclasses.replace(sample, timestep=0)], 0.5)
    assert "l1" not in plain
    assert plain["plain"] > 0
    _, vivid = stage.loss([dataclasses.replace(sample, timestep=1)], 0.5)
    assert "l1" in vivid
    assert vivid["plain"] == 0


def _pixels(draw: int) -> Tensor:
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(draw)) * 2 - 1


def test_a_discriminator_is_heard_as_far_as_it_tells_the_two_apart(more: dict[str, dict[str, Any]]) -> None:
    class Judge(torch.nn.Module):
        def __init__(self, apart: float) -> None:
            super().__init__()
            self.apart = apart

        def forward(self, pictures: Tensor) -> Tensor:
            return self.apart * pictures.mean((1, 2, 3))

    losses = Losses(smoke("restorer", **more["restorer"]), torch.device("cpu"))
    clean, made = torch.ones(1, 3, 32, 32), torch.full((1, 3, 32, 32), -0.5)

    def asked(opponent: Judge | None) -> Tensor:
        pixels = made.clone().requires_grad_()
        total, _ = opposed(losses, opponent, pixels, clean, made, 1.0)  # type: ignore[arg-type]
        [gradient] = torch.autograd.grad(total, pixels)
        return gradient

    alone = asked(None)
    assert torch.equal(asked(Judge(-1.0)), alone), "it takes what is made for more real"
    nearly, surely = ((asked(Judge(apart)) - alone).norm() / alone.norm() for apart in (0.4, 4.0))
    share = losses.options.adversarial_share
    assert surely == pytest.approx(share, rel=1e-3)
    assert nearly == pytest.approx(share * 0.4 * 1.5 / 2, rel=1e-3)


def test_fewer_blocks_are_those_that_the_teacher_can_least_spare() -> None:
    kept = [kept_blocks(number) for number in range(1, NUM_TEACHER_BLOCKS + 1)]
    assert kept[-1] == list(range(NUM_TEACHER_BLOCKS))
    assert [len(blocks) for blocks in kept] == list(range(1, NUM_TEACHER_BLOCKS + 1))
    assert all(set(fewer) < set(more) for fewer, more in itertools.pairwise(kept))
    assert kept[11] == [0, 1, 2, 3, 4, 5, 6, 16, 17, 18, 21, 22]


def test_the_teachers_answer_is_a_target_beside_the_truth(more: dict[str, dict[str, Any]]) -> None:
    options = smoke("restorer", **more["restorer"] | {"teacher_weight": 0.25})
    losses = Losses(options, torch.device("cpu"))
    assert losses.vgg is not None
    for head in losses.vgg.heads:
        torch.nn.init.ones_(head)
    clean, answer, made = (_pixels(draw) for draw in range(3))
    losses.answer = lambda degraded: answer  # type: ignore[method-assign]
    total, values = losses(made, clean, clean)
    alone = dataclasses.replace(options, teacher_weight=0.0)
    to_truth, to_teacher = (Losses(alone, torch.device("cpu")) for _ in range(2))
    for each in (to_truth, to_teacher):
        each.vgg = losses.vgg
    one, other = to_truth(made, clean, clean)[0], to_teacher(made, answer, clean)[0]
    torch.testing.assert_close(total, 0.75 * one + 0.25 * other)
    assert set(values) == {"l1", "vgg", "teacher_l1", "teacher_vgg"}
    assert values["teacher_l1"] == (made - answer).abs().mean()


def test_what_is_missing_is_named(photographs: Path, more: dict[str, dict[str, Any]]) -> None:
    options = smoke("restorer", **more["restorer"])
    cases = {"perceptual": "supir evaluate --weights FOLDER --fetch", "teacher": "--set teacher="}
    for field, sentence in cases.items():
        with pytest.raises(OptionError, match=sentence):
            make_stage(make_materials(photographs, dataclasses.replace(options, **{field: ""})))
