"""Another model first: read safely, in tiles, in the record and in what batches resume by, over HTTP by names alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from picture_files import smooth
from supir.errors import OptionError, UnsafeCheckpointError, WeightsError
from supir.evaluation.methods import FirstAlone
from supir.image import Picture, read_record, resize
from supir.jobs import Model, run_batch
from supir.jobs.job import Job
from supir.service.validation import chosen_options
from supir.weights import first
from supir.weights.first import first_file, open_first
from tiny import save_tiny_model, tiny_pipeline

pytest.importorskip("einops")


def esrgan(path: Path, seed: int = 0, scale: int = 2) -> Path:
    """A small one with random weights, as its authors save it."""
    with first._without_torchvision():
        from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RRDBNet(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=scale)
    tensors = network.state_dict()
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"params_ema": tensors}, path)
    return path


@pytest.mark.parametrize("name", ["x2.pth", "x2.safetensors"])
def test_it_enlarges_in_tiles_as_in_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_first(esrgan(tmp_path / name))
    pixels = torch.rand(3, 40, 150, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = found(pixels)
    assert (found.scale, whole.shape) == (2, (3, 80, 300))
    monkeypatch.setattr(first, "TILE", 96)
    monkeypatch.setattr(first, "OVERLAP", 40)
    assert (found(pixels) - whole).abs().max() < 0.02
    method = FirstAlone(str(tmp_path / name))
    assert method(pixels[None], 60, 225).shape == (1, 3, 60, 225)
    assert method.identity["first"].startswith("x2 sha256:")


def test_supir_restores_what_it_made(tmp_path: Path) -> None:
    file, pipeline = esrgan(tmp_path / "x2.pth"), tiny_pipeline()
    photo = Picture(pixels=torch.rand(3, 32, 48) * 2 - 1)
    quick = {"min_size": 64, "num_steps": 1, "color_fix": "none"}
    enlarged = replace(photo, pixels=resize(open_first(file)(photo.pixels), 64, 96))
    [by_hand] = pipeline(enlarged, scale=1.0, **quick)
    [made] = pipeline(photo, scale=2.0, first=str(file), **quick)
    torch.testing.assert_close(made.picture.pixels, by_hand.picture.pixels)
    assert made.record["first"].startswith("x2 sha256:")
    [same] = pipeline(photo, scale=1.0, min_size=16, num_steps=1, first=str(file))
    assert same.record["first"] == "not asked, since nothing is enlarged"


def test_a_batch_goes_on_by_what_is_in_the_file(tmp_path: Path) -> None:
    model = Model(folder=save_tiny_model(tmp_path / "model"), devices=("cpu",))
    Image.fromarray(smooth(32, 48)).save(tmp_path / "a.png")
    options = model.options(first=str(esrgan(tmp_path / "x.pth")), scale=2.0, min_size=64, num_steps=1)
    job = Job(source=tmp_path / "a.png", target=tmp_path / "out" / "a.png", options=options)

    def run() -> bool:
        [outcome] = run_batch([job], tmp_path / "out", model=model)
        assert outcome.error is None
        return outcome.skipped

    assert [run(), run()] == [False, True]
    assert read_record(job.target)["first"].startswith("x sha256:")
    esrgan(tmp_path / "x.pth", seed=1)
    assert [run(), run()] == [False, True]


def test_what_is_none_is_refused_before_the_work(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    torch.save({"params": np.random.Generator}, tmp_path / "b.pth")
    for name, error, said in (
        ("none.pth", WeightsError, "first: none.pth: there is no such file"),
        (str(tmp_path), WeightsError, "is a folder"),
        (str(tmp_path / "a.safetensors"), WeightsError, "no enlarger that spandrel knows"),
        (str(tmp_path / "b.pth"), UnsafeCheckpointError, "b.pth"),
    ):
        with pytest.raises(error, match=said):
            Model().check_first([name])


def test_a_service_offers_those_of_a_folder(tmp_path: Path) -> None:
    esrgan(tmp_path / "x2.pth")
    with pytest.raises(OptionError, match="this service offers none"):
        chosen_options({"first": "x2"}, Model())
    offered = Model(first_models=tmp_path)
    assert chosen_options({"first": "x2"}, offered)[0].first == "x2"
    for name in ("../x2", str(tmp_path / "x2.pth"), "x2.pth", "."):
        with pytest.raises(OptionError, match="here; there are: x2"):
            chosen_options({"first": name}, offered)
    assert first_file("x2", tmp_path) == tmp_path / "x2.pth"
    torch.save({"params": np.random.Generator}, tmp_path / "code.pth")
    with pytest.raises(OptionError, match=r"code\.pth") as refused:
        chosen_options({"first": "code"}, offered)
    assert "lora" not in str(refused.value)
