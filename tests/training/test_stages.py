"""What each stage teaches and what it leaves alone: a well-posed encoder, a prior that does not move by a bit."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from smoke_runs import make_materials, needed, smoke
from torch.utils._python_dispatch import TorchDispatchMode

from supir.models.adaptor import SupirAdaptor
from supir.models.autoencoder import SupirAutoencoder
from supir.models.text import TextTowers
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.models.unet import SupirUNet
from supir.pipeline import SupirPipeline
from supir.training.denoising import Denoising, draw_timestep
from supir.training.dry_run import counts, outlook
from supir.training.loop import Stage, Trainer
from supir.training.recipes import StageOptions, named_run
from supir.training.runs import Request, load_networks, make_stage, open_run
from supir.training.sizes import SIZES, build_size, trunk
from supir.training.stages.adaptor import is_prior, start_from_prior
from supir.training.stages.encoder import encoder_terms, with_copied_encoder
from supir.training.stages.lora import add_layers
from supir.training.states import load_averages
from tiny import randomised, tiny_components


def thin() -> ThinAutoencoder:
    torch.manual_seed(0)
    model = ThinAutoencoder(**SIZES["smoke"].autoencoder)
    torch.nn.init.normal_(model.restorer.conv_out.weight, std=0.02)
    return model


def sdxl_like() -> SupirAutoencoder:
    return randomised(SupirAutoencoder(block_out_channels=(32, 32, 32, 32), layers_per_block=1, sample_size=64), 1)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    clean = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    return clean, torch.nn.functional.avg_pool2d(clean, 5, 1, 2)


def test_the_printed_loss_alone_admits_the_constant_encoder(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """It is at its minimum there, without a gradient that leads away; each of our terms has one."""
    model = sdxl_like()
    torch.nn.init.zeros_(model.degraded_encoder.conv_out.weight)  # what is left of it is its bias
    model.requires_grad_(False).degraded_encoder.requires_grad_(True)
    terms = encoder_terms(model, *pair)
    learning = list(model.degraded_encoder.parameters())
    assert terms["printed"].item() == 0
    for name, leads_away in (("printed", False), ("fixed", True), ("reconstruction", True)):
        gradients = torch.autograd.grad(terms[name], learning, retain_graph=True, allow_unused=True)
        largest = max(float(g.abs().max()) for g in gradients if g is not None)
        assert (largest > 1e-6) is leads_away, name
    assert terms["fixed"].item() > 1e-3
    assert terms["reconstruction"].item() > 1e-3


@pytest.mark.parametrize("make", [thin, sdxl_like])
def test_only_e_dr_learns_and_its_loss_falls(make: Callable[[], torch.nn.Module], photographs: Path) -> None:
    model = make()
    if isinstance(model, SupirAutoencoder):
        model.degraded_encoder.load_state_dict(model.encoder.state_dict())
    options = smoke("encoder", steps=12, batch=2)
    stage = make_stage(make_materials(photographs, options, autoencoder=model))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = run(stage, options)
    for name, tensor in model.state_dict().items():
        learns = name.startswith(("restorer.", "degraded_encoder."))
        assert learns or torch.equal(tensor, before[name]), name
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


@pytest.mark.parametrize("make", [thin, sdxl_like])
def test_e_dr_can_begin_as_e(make: Callable[[], Any]) -> None:
    model = make()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1))
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        own = model.encode(picture).latent_dist.mode()
        assert not torch.allclose(model.encode_degraded(picture).latent_dist.mode(), own)
        made = with_copied_encoder(model, seed=3)
        assert torch.equal(made.encode(picture).latent_dist.mode(), own)
        assert torch.equal(made.encode_degraded(picture).latent_dist.mode(), own)
    assert any(parameter.requires_grad for parameter in made.parameters())


def run(stage: Stage, options: StageOptions) -> list[float]:
    """Train a few steps on the same samples and return the losses."""
    assert stage.draw is not None
    samples = [stage.draw(np.random.default_rng((1, number)), number) for number in range(stage.batch)]
    losses = []
    whole = stage.loss

    def loss(_: object, progress: float) -> tuple[torch.Tensor, dict[str, float]]:
        value, found = whole(samples, progress)
        losses.append(value.item())
        return value, found

    stage.loss = loss
    with tempfile.TemporaryDirectory() as run_folder:
        Trainer(stage, Path(run_folder), options).train()
    return losses


def randomised_networks() -> dict[str, torch.nn.Module]:
    """Smoke networks whose zero-initialised layers are drawn anew, so that the control reaches every prior block."""
    found = build_size("smoke")
    for number, name in enumerate(("unet", "adaptor")):
        randomised(found[name], number)
    return found


def test_the_frozen_prior_does_not_move_by_a_bit(photographs: Path) -> None:
    networks = randomised_networks()
    options = smoke("adaptor", steps=3, weight_decay=0.1, validation_steps=2)
    materials = make_materials(photographs, options, **networks)
    stage = make_stage(materials)
    frozen = ("autoencoder", "text_encoder", "text_encoder_2", "unet")
    before = {f"{c}.{n}": t.clone() for c in frozen for n, t in networks[c].state_dict().items()}
    learned = {n: p.detach().clone() for n, p in networks["adaptor"].named_parameters()}
    learned |= {n: p.detach().clone() for n, p in networks["unet"].connectors.named_parameters()}
    run(stage, options)
    prior = {f"{c}.{n}": p for c in frozen for n, p in networks[c].named_parameters()}
    assert sum(is_prior(name) for name in prior) > 200
    for name, tensor in before.items():
        component, inner = name.split(".", 1)
        if "unet.connectors." not in name:
            assert torch.equal(networks[component].state_dict()[inner], tensor), name
    assert [name for name, p in prior.items() if p.grad is not None and "unet.connectors." not in name] == []
    moved = dict(networks["adaptor"].named_parameters()) | dict(networks["unet"].connectors.named_parameters())
    assert [name for name, p in moved.items() if torch.equal(p, learned[name])] == []


def test_a_prior_that_was_not_frozen_would_be_noticed(photographs: Path) -> None:
    """The check above is not vacuous: with the prior free, the same loss reaches nearly all of it."""
    networks = randomised_networks()
    options = smoke("adaptor")
    stage = make_stage(make_materials(photographs, options, **networks))
    networks["unet"].requires_grad_(True)
    assert stage.draw is not None
    loss, _ = stage.loss([stage.draw(np.random.default_rng(number), number) for number in range(2)], 0.0)
    loss.backward()
    reached = [p.grad is not None and bool(p.grad.any()) for n, p in networks["unet"].named_parameters()]
    assert np.mean(reached) > 0.9


def test_the_prior_stage_leaves_the_connectors(photographs: Path) -> None:
    options = smoke("prior", steps=2)
    materials = make_materials(photographs, options)
    unet, words = materials.networks["unet"], materials.networks["text_encoder_2"]
    connectors = {n: p.detach().clone() for n, p in unet.connectors.named_parameters()}
    first, embedding = unet.conv_in.weight.detach().clone(), words.text_projection.weight.detach().clone()
    run(make_stage(materials), options)
    assert all(torch.equal(p, connectors[n]) for n, p in unet.connectors.named_parameters())
    assert not torch.equal(unet.conv_in.weight, first)
    assert not torch.equal(words.text_projection.weight, embedding)


def test_the_autoencoder_stage_learns_and_leaves_e_dr(photographs: Path) -> None:
    model = thin()
    options = smoke("autoencoder", steps=10)
    restorer = {n: p.detach().clone() for n, p in model.restorer.named_parameters()}
    losses = run(make_stage(make_materials(photographs, options, autoencoder=model)), options)
    assert all(torch.equal(p, restorer[n]) for n, p in model.restorer.named_parameters())
    assert losses[-1] < losses[0]


def test_the_loss_is_the_mean_square_error_of_the_noise(photographs: Path) -> None:
    networks = randomised_networks()
    materials = make_materials(photographs, smoke("adaptor"), **networks)
    denoising = Denoising(materials, controlled=True)
    latent = torch.randn(2, *materials.latent_shape)
    noise, timestep = torch.randn_like(latent), torch.tensor([10, 900])
    known = denoising.known(["a cat", ""])
    found = denoising.error(latent, latent, timestep, noise, known)
    from supir.sampling.sigmas import training_sigmas

    sigma = training_sigmas()[timestep][:, None, None, None]
    noisy = (latent + sigma * noise) / (sigma**2 + 1).sqrt()
    tokens, vector, _ = known
    control = networks["adaptor"](noisy, timestep, tokens, vector, latent)
    predicted = networks["unet"](noisy, timestep, tokens, added_cond_kwargs=vector, control=control).sample
    torch.testing.assert_close(found, (predicted - noise).square().mean(), rtol=1e-4, atol=1e-5)


LONG = "a wooden door with a brass handle, " * 12 + "in a {} wall"
"""A caption of more than 75 tokens whose last words differ."""


def test_beside_a_longer_caption_a_short_one_learns_what_it_learns_alone(photographs: Path) -> None:
    options = smoke("adaptor")
    materials = make_materials(photographs, options, **randomised_networks())
    denoising = Denoising(materials, controlled=True)
    prompts = [LONG.format("red"), "a cat", LONG.format("blue"), ""]
    names = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
    towers = TextTowers(**{name: materials.networks[name] for name in names})
    with torch.no_grad():
        tokens, words, own = denoising.known(prompts)
        assert own is not None
        for row, prompt in enumerate(prompts):
            alone = towers.encode([prompt])
            torch.testing.assert_close(tokens[row][own[row]], alone.tokens[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(words["text_embeds"][row], alone.pooled[0], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(tokens[0], tokens[2], atol=1e-3), "what differs after 75 tokens"
        generator = torch.Generator().manual_seed(0)
        latent = torch.randn(4, *materials.latent_shape, generator=generator)
        steps = torch.tensor([10, 300, 600, 900])
        together = denoising.predicted(latent, steps, latent, denoising.known(prompts))
        plain = denoising.predicted(latent, steps, None, denoising.known(prompts))
        for row, prompt in enumerate(prompts):
            one, step, known = latent[row : row + 1], steps[row : row + 1], denoising.known([prompt])
            assert known[2] is None
            for found, hint in ((together, one), (plain, None)):
                alone = denoising.predicted(one, step, hint, known)
                torch.testing.assert_close(found[row], alone[0], rtol=1e-3, atol=1e-4)


def test_detail_favours_low_levels() -> None:
    drawn = {
        kind: [draw_timestep(np.random.default_rng(n), kind) for n in range(500)] for kind in ("uniform", "detail")
    }
    assert np.mean(drawn["uniform"]) == pytest.approx(500, abs=45)
    assert all(0 <= t < 1000 for found in drawn.values() for t in found)
    assert np.std(drawn["detail"]) < np.std(drawn["uniform"])


def test_the_adaptor_begins_as_the_prior_s_encoder() -> None:
    found = build_size("smoke")
    unet, adaptor = found["unet"], found["adaptor"]
    unet.eval()
    randomised(unet, 5)
    start_from_prior(unet, adaptor)
    assert torch.equal(adaptor.conv_in.weight, unet.conv_in.weight)
    assert torch.equal(adaptor.mid_block.resnets[0].conv1.weight, unet.mid_block.resnets[0].conv1.weight)
    assert not adaptor.hint_conv.weight.any()
    assert not any(c.zero_conv.weight.any() for c in unet.connectors if hasattr(c, "zero_conv"))


def test_a_trimmed_trunk_takes_blocks_spread_over_the_prior_s() -> None:
    shape = trunk((32, 32, 64), (1, 1, 2), 16, 8)
    unet = SupirUNet(**shape | {"transformer_layers_per_block": (1, 2, 4)}, connector_head_dim=32)
    adaptor = SupirAdaptor(**shape | {"transformer_layers_per_block": (1, 1, 2)})
    start_from_prior(unet, adaptor)
    mine, theirs = (net.mid_block.attentions[0].transformer_blocks for net in (adaptor, unet))
    for number, source in enumerate((0, 2)):
        assert torch.equal(mine[number].attn1.to_q.weight, theirs[source].attn1.to_q.weight)


@pytest.mark.slow
def test_the_run_learns_the_trunk_that_the_dry_run_counts(photographs: Path, tmp_path: Path) -> None:
    """Of a folder with SDXL's depths, as `supir convert --lenient` makes it; and the model that comes of it has it."""
    shape = trunk((32, 32, 64), (1, 1, 2), 16, 8) | {"transformer_layers_per_block": (1, 2, 10)}
    channels = {"in_channels": 8}
    deep = {
        "unet": SupirUNet(**shape, **channels, out_channels=8, connector_hidden_channels=8, connector_head_dim=32),
        "adaptor": SupirAdaptor(**shape, **channels, hint_channels=8),
    }
    networks, _ = load_networks(smoke("adaptor"), None)
    SupirPipeline(**(networks | deep)).save_pretrained(tmp_path / "model")
    little = {"crop": 64, "batch": 1, "steps": 1, "mixed_precision": "no", "frozen_dtype": "float32", "workers": 0}
    options = named_run("paper/adaptor", **little, gradient_checkpointing=False, validation_steps=9)
    told = outlook(options, start=tmp_path / "model").learning["adaptor"]
    request = Request(options=options, data=(photographs,), out=tmp_path / "run", start=tmp_path / "model")
    run = open_run(request, curves=False)
    learning = [tensor for name, tensor in run.trainer.learning.items() if name.startswith("adaptor.")]
    assert sum(tensor.numel() for tensor in learning) == told < sum(p.numel() for p in deep["adaptor"].parameters())
    product = run.train()
    made = SupirPipeline.from_pretrained(product).adaptor
    assert tuple(made.config.transformer_layers_per_block) == (1, 1, 5)
    assert sum(parameter.numel() for parameter in made.parameters()) == told


@pytest.mark.slow
def test_what_paints_is_kept_by_lpips_where_it_can_be(photographs: Path, tmp_path: Path) -> None:
    keep = named_run("paper/adaptor").keep_best
    perceptual = needed(tmp_path)["generator"]["perceptual"]
    for name, settings in (("loss", {}), ("result_vgg", {"perceptual": perceptual})):
        options = smoke("adaptor", steps=1, validation_steps=1, keep_best=keep, **settings)
        request = Request(options=options, data=(photographs,), out=tmp_path / name)
        open_run(request, curves=False).train()
        best = load_averages(tmp_path / name, best=True)
        assert best is not None
        assert set(best.numbers) == {"step", name}


@pytest.mark.slow
def test_connectors_are_those_of_the_model_or_those_asked_for(tmp_path: Path) -> None:
    networks, _ = load_networks(smoke("adaptor"), None)
    randomised(networks["unet"], 5)
    SupirPipeline(**networks).save_pretrained(tmp_path / "model")
    own = networks["unet"].connectors[0].zero_conv.weight

    def begun(**settings: Any) -> Any:
        return load_networks(smoke("adaptor", **settings), tmp_path / "model")[0]["unet"]

    for kept in (begun(), begun(connectors="zero_sft")):
        assert torch.equal(kept.connectors[0].zero_conv.weight, own)
    anew = begun(connectors="zero_conv")
    assert anew.config.connector_kind == "zero_conv"
    assert torch.equal(anew.conv_in.weight, networks["unet"].conv_in.weight)
    fresh = begun(fresh_connectors=True)
    assert fresh.config.connector_kind == "zero_sft"
    assert not fresh.connectors[0].zero_conv.weight.any()


@pytest.mark.parametrize("target", ["adaptor", "connectors", "both"])
def test_lora_learns_only_its_layers(photographs: Path, target: str) -> None:
    networks = randomised_networks()
    options = smoke("lora", steps=2, lora_target=target)
    before = {c: {n: t.clone() for n, t in networks[c].state_dict().items()} for c in ("unet", "adaptor")}
    stage = make_stage(make_materials(photographs, options, **networks))
    run(stage, options)
    wanted = {"adaptor": {"adaptor"}, "connectors": {"unet"}, "both": {"adaptor", "unet"}}[target]
    assert set(stage.modules) == wanted
    for component, known in before.items():
        for name, tensor in networks[component].state_dict().items():
            plain = name.replace(".base_layer.", ".")
            if plain in known:
                assert torch.equal(tensor, known[plain]), name
            else:
                assert "lora_" in name
    assert all("connectors." in n for n, p in networks["unet"].named_parameters() if "lora_" in n)
    moved = [p for c in wanted for n, p in networks[c].named_parameters() if "lora_B" in n]
    assert moved
    assert all(p.any() for p in moved)


@pytest.mark.slow
def test_mixed_precision_and_checkpointing_teach_the_same(photographs: Path) -> None:
    from accelerate.state import AcceleratorState

    losses = {}
    try:
        for name, overrides in {
            "plain": {},
            "again": {"gradient_checkpointing": True},
            "bf16": {"mixed_precision": "bf16", "frozen_dtype": "bfloat16"},
        }.items():
            AcceleratorState._reset_state(reset_partial_state=True)
            options = smoke("adaptor", steps=3, validation_steps=3, **overrides)
            stage = make_stage(make_materials(photographs, options, **randomised_networks()))
            losses[name] = run(stage, options)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    np.testing.assert_allclose(losses["again"], losses["plain"], rtol=1e-4)
    np.testing.assert_allclose(losses["bf16"], losses["plain"], rtol=0.05)


class Arriving(TorchDispatchMode):
    """Counts the bytes that are copied to another device."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].device != made.device:
            self.bytes += made.nbytes
        return made


@pytest.mark.parametrize("stage", ["autoencoder", "encoder", "prior", "adaptor", "lora"])
def test_what_does_not_learn_comes_to_the_device_narrow(photographs: Path, stage: str) -> None:
    """So that a device that has room for the run has room for its beginning; and what learns, learns in float32."""
    options = smoke(stage, mixed_precision="bf16", frozen_dtype="bfloat16", learn_words=False)
    materials = dataclasses.replace(make_materials(photographs, options), device=torch.device("meta"))
    with Arriving() as arriving:
        made = make_stage(materials)
    parts = [part for part in materials.networks.values() if isinstance(part, torch.nn.Module)]
    assert {parameter.device.type for part in parts for parameter in part.parameters()} == {"meta"}
    learning = {p for part in parts for p in part.parameters() if p.requires_grad}
    assert {parameter.dtype for parameter in learning} == {torch.float32}
    counted = counts(materials.networks, made)
    learns, rests = sum(counted.learning.values()), sum(counted.frozen.values())
    assert sum(counted.frozen_bytes.values()) == 2 * rests
    assert sum(parameter.numel() for parameter in learning) == learns
    assert 4 * learns + 2 * rests <= arriving.bytes < 4 * learns + 2 * rests + 10_000  # and the levels


def test_layers_are_the_same_for_the_same_seed() -> None:
    first, second = (add_layers(build_size("smoke"), smoke("lora", lora_target="both")) for _ in range(2))
    for name in ("adaptor", "unet"):
        for one, other in zip(first[name].parameters(), second[name].parameters(), strict=True):
            assert torch.equal(one, other)


def test_the_tiny_pipeline_trains_too(photographs: Path) -> None:
    """An SDXL-like autoencoder and byte-level tokenizers in place of the bundled ones."""
    import copy

    networks = copy.deepcopy(tiny_components())
    options = smoke("adaptor", steps=2)
    stage = make_stage(make_materials(photographs, options, **networks))
    assert all(np.isfinite(run(stage, options)))
