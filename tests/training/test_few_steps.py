"""The few-step stages: what they sample, what teaches whom, and what the negative words ask for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from supir.prompts import POSITIVE_PROMPT
from supir.training import few_steps
from supir.training.answers import Answers
from supir.training.few_steps import FEATURE_WEIGHT, Samples, taught_stage
from supir.training.restoring import LEARNING, Restoring
from supir.training.sizes import build, build_size, with_fresh_connectors
from supir.training.words import NEGATIVE_PROMPT, Words
from tiny import tiny_tokenizer
from training.test_adversarial import features, tiles  # noqa: F401  (fixtures)
from training.test_answers import answers  # noqa: F401  (a fixture)


@pytest.fixture
def restoring() -> Restoring:
    networks = build_size("smoke", seed=3)
    for name in LEARNING:
        for parameter in networks[name].parameters():  # zero-initialised layers would hide what does not arrive
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    coder = networks.pop("autoencoder").requires_grad_(False)
    words = Words([tiny_tokenizer()] * 2, [networks["text_encoder"], networks["text_encoder_2"]])
    return Restoring(networks, coder, words)


def reached(restoring: Restoring) -> set[str]:
    """Components in which some parameter has a gradient that is not zero."""
    modules = restoring.models | {"autoencoder": restoring.autoencoder}
    return {
        name
        for name, module in modules.items()
        if any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in module.parameters())
    }


def test_the_answer_of_the_last_step_is_what_the_sampler_returns(restoring: Restoring) -> None:
    hint = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(hint.shape, generator=torch.Generator().manual_seed(0))
    prompts = [POSITIVE_PROMPT] * 2
    with torch.no_grad():
        last = restoring.answer(hint, prompts, noise, 4, 3)
        first = restoring.answer(hint, prompts, noise, 4, 0)
    torch.testing.assert_close(restoring.sample(hint, 4), last, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first, last, atol=1e-3)


def test_the_answer_comes_to_the_answers_latent_and_the_truths_features(
    restoring: Restoring,
    tiles: Path,  # noqa: F811
    answers: Path,  # noqa: F811
    features: Path,  # noqa: F811
) -> None:
    stage = taught_stage(tiles, [answers], restoring, features, batch=4, crop=64)
    optimiser = torch.optim.Adam([p for m in stage.modules.values() for p in m.parameters()], lr=1e-3)
    losses = []
    for _ in range(12):
        torch.manual_seed(0)
        loss, values = stage.loss(np.random.default_rng(5), 0.5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(values["left"])
    assert reached(restoring) == set(LEARNING)
    assert losses[-1] < 0.7 * losses[0]


def test_under_the_negative_words_the_hint_is_wanted(
    restoring: Restoring,
    tiles: Path,  # noqa: F811
    answers: Path,  # noqa: F811
    features: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(few_steps, "NEGATIVE_SHARE", 1.0)
    samples = Samples.draw(np.random.default_rng(0), Answers(answers), 4, 64)
    assert samples.prompts[:3] == [NEGATIVE_PROMPT] * 3
    assert samples.num_poor == 3
    meaningless = Samples.draw(np.random.default_rng(0), Answers(answers), 4, 64, negatives=False)
    assert meaningless.prompts == samples.prompts
    assert meaningless.num_poor == 0
    monkeypatch.setattr(Restoring, "drawn_answer", lambda self, rng, hint, prompts: hint.clone().requires_grad_())
    stage = taught_stage(tiles, [answers], restoring, features, batch=4, crop=64)
    loss, values = stage.loss(np.random.default_rng(0), 0.5)
    # The answer is the hint: three samples want just that, only the fourth is wrong.
    torch.testing.assert_close(loss.item(), values["before"] / 4 + FEATURE_WEIGHT * values["features"])


def test_the_sheet(
    restoring: Restoring,
    tiles: Path,  # noqa: F811
    answers: Path,  # noqa: F811
    features: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    stage = taught_stage(tiles, [answers], restoring, features, 2, 64)
    assert stage.sheet is not None
    with torch.no_grad():
        values = stage.sheet(tmp_path / "sheet.png")
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (8 * 192, 6 * 192, 3)
    assert values["preview"] > 5


def test_fresh_connectors_leave_the_rest_of_the_unet() -> None:
    unet = build(8)["unet"]
    fresh = with_fresh_connectors(unet, "zero_conv")
    known = unet.state_dict()
    for name, weight in fresh.state_dict().items():
        if not name.startswith("connectors."):
            assert torch.equal(weight, known[name]), name
    assert [type(c).__name__ for c in fresh.connectors].count("ZeroConv") == 10
    again = with_fresh_connectors(unet, "zero_sft").state_dict()
    assert again.keys() == known.keys()
    assert not torch.equal(again["connectors.0.zero_conv.weight"], known["connectors.0.zero_conv.weight"])
