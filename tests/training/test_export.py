"""The bundled model put together: whose component is taken, what is refused, what a blend is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from supir.errors import OptionError
from supir.training import checkpoint, export
from supir.training.checkpoint import State
from supir.training.export import assembled, blended
from training.test_adversarial import small_model


class Part(nn.Linear):
    """A component of one weight, stored as diffusers stores one."""

    def __init__(self, value: float) -> None:
        super().__init__(1, 1, bias=False)
        nn.init.constant_(self.weight, value)

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        folder.mkdir(parents=True)
        save_file({"weight": self.weight.detach().half()}, folder / "diffusion_pytorch_model.safetensors")


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "build", lambda channels, connectors: {"unet": Part(0), "adaptor": Part(0)})


@pytest.mark.usefixtures("empty")
def test_the_last_folder_that_holds_a_component_gives_it(tmp_path: Path) -> None:
    for name in ("unet", "adaptor"):
        Part(1).save(tmp_path / "model" / name)
    Part(2).save(tmp_path / "finished" / "adaptor")
    found = assembled([tmp_path / "model", tmp_path / "finished"], 32)
    assert [found[name].weight.item() for name in ("unet", "adaptor")] == [1, 2]


@pytest.mark.usefixtures("empty")
def test_of_a_run_still_training_the_averages_are_taken(tmp_path: Path) -> None:
    current, average = ({f"{name}.weight": torch.full((1, 1), v) for name in ("unet", "adaptor")} for v in (5.0, 4.0))
    checkpoint.save(tmp_path / "run", State(weights=current, ema=average, numbers={"step": 3}))
    assert assembled([tmp_path / "run"], 32)["unet"].weight.item() == 4


@pytest.mark.usefixtures("empty")
def test_what_nobody_holds_is_named(tmp_path: Path) -> None:
    Part(1).save(tmp_path / "run" / "unet")
    with pytest.raises(OptionError, match=r"adaptor\.weight is in none of .*run"):
        assembled([tmp_path / "run"], 32)
    with pytest.raises(OptionError, match="holds neither"):
        assembled([tmp_path / "nothing"], 32)


def test_blended_autoencoders_lie_between(tmp_path: Path) -> None:
    first, second = small_model(), small_model()
    torch.nn.init.constant_(second.restorer.conv_in.weight, 1.0)
    first.save_pretrained(tmp_path / "first")
    second.save_pretrained(tmp_path / "second")
    found = blended(tmp_path / "first", tmp_path / "second", 0.25)
    expected = 0.75 * first.restorer.conv_in.weight + 0.25
    torch.testing.assert_close(found.restorer.conv_in.weight, expected)
    assert torch.equal(found.decoder.conv_in.weight, first.decoder.conv_in.weight)


@pytest.mark.usefixtures("empty")
def test_a_share_of_the_last_folder_is_taken(tmp_path: Path) -> None:
    for folder, value in (("model", 1), ("run", 3)):
        Part(value).save(tmp_path / folder / "unet")
    Part(8).save(tmp_path / "model" / "adaptor")
    found = assembled([tmp_path / "model", tmp_path / "run"], 32, share=0.75)
    assert [found[name].weight.item() for name in ("unet", "adaptor")] == [2.5, 8]
