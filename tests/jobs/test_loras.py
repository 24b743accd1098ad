"""`--lora`: what a command, a batch and a manifest make with LoRAs, and when they make it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from jobs.pictures import FLAGS, save
from supir import image
from supir.cli.main import app
from supir.errors import OptionError
from supir.jobs import Model
from supir.options import RestoreOptions
from supir.options.loras import Lora, split_loras
from supir.pipeline import SupirPipeline
from supir.training.recipes import StageOptions
from supir.training.stages.lora import add_layers, save_adapter
from supir.weights.catalog import file_hash
from weights.tiny_files import tiny_lora


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_restore_with_two_and_what_the_record_says(folder: Path, tmp_path: Path) -> None:
    source, first, second = (
        save(tmp_path / "x.png"),
        tiny_lora(tmp_path / "a.safetensors"),
        tiny_lora(tmp_path / "b.c.safetensors", 1),
    )
    common = ("restore", "--model", folder, *FLAGS, source)
    assert invoke(*common, "-o", tmp_path / "plain.png").exit_code == 0
    made = invoke(*common, "-o", tmp_path / "made.png", "--lora", first, "--lora", f"{second}:0.5")
    assert made.exit_code == 0, made.output
    assert not torch.equal(image.read(tmp_path / "plain.png").pixels, image.read(tmp_path / "made.png").pixels)
    record = image.read_record(tmp_path / "made.png")
    assert record["adapters"] == f"a 1 sha256:{file_hash(first)}, b_c 0.5 sha256:{file_hash(second)}"
    assert "adapters" not in image.read_record(tmp_path / "plain.png")
    nothing = invoke(*common, "-o", tmp_path / "zero.png", "--lora", f"{first}:0")
    assert nothing.exit_code == 0
    assert (image.read(tmp_path / "plain.png").pixels - image.read(tmp_path / "zero.png").pixels).abs().max() < 1e-2


@pytest.mark.parametrize(
    ("width", "name", "said"),
    [
        (768, "sd1.safetensors", "sd1.safetensors: a LoRA of Stable Diffusion 1: it reads text 768 channels wide"),
        (None, "none.safetensors", "none.safetensors: there is no such file"),
    ],
)
def test_what_does_not_fit_stops_the_command_once(
    width: int | None, name: str, said: str, folder: Path, tmp_path: Path
) -> None:
    """Before anything is restored, not photo after photo."""
    if width is not None:
        tiny_lora(tmp_path / name, text_width=width)
    for seed in (0, 1):
        save(tmp_path / "in" / f"{seed}.png", seed)
    result = invoke(
        "restore", "--model", folder, *FLAGS, tmp_path / "in", "-o", tmp_path / "out", "--lora", tmp_path / name
    )
    assert result.exit_code != 0
    assert " ".join(result.stderr.split()).count(said) == 1
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.slow
def test_a_batch_is_made_again_when_what_is_in_the_file_changes(folder: Path, tmp_path: Path) -> None:
    source, file = save(tmp_path / "in" / "x.png"), tiny_lora(tmp_path / "style.safetensors")

    def batch(*more: object) -> dict[str, Any]:
        done = invoke("batch", "--model", folder, *FLAGS, source, "-o", tmp_path / "out", "--json", *more)
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout))

    assert batch()["done"] == 1
    assert batch("--lora", file)["done"] == 1
    moved = file.rename(
        tmp_path / "elsewhere" if (tmp_path / "elsewhere").mkdir() else tmp_path / "elsewhere" / file.name
    )
    assert batch("--lora", moved)["skipped"] == 1  # by what it holds, not by where it lies
    assert batch("--lora", f"{moved}:0.5")["done"] == 1
    tiny_lora(moved, seed=5)
    assert batch("--lora", f"{moved}:0.5")["done"] == 1
    assert batch()["done"] == 1


def test_each_line_of_a_manifest_has_its_own(folder: Path, tmp_path: Path) -> None:
    """Relative to the manifest's folder; what one picture had is off for the next."""
    save(tmp_path / "x.png")
    tiny_lora(tmp_path / "style.safetensors")
    lines = [
        {"path": "x.png", "output": f"{name}.png", "lora": text}
        for name, text in (
            ("plain", ""),
            ("strong", "style.safetensors:2"),
            ("after", ""),
            ("half", "style.safetensors:0.5"),
        )
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = invoke("batch", "--model", folder, *FLAGS, "--manifest", tmp_path / "list.jsonl", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    pixels = {line["output"]: image.read(tmp_path / "out" / line["output"]).pixels for line in lines}
    assert torch.equal(pixels["plain.png"], pixels["after.png"])
    assert len({float(each.sum()) for each in pixels.values()}) == 3


def test_what_a_training_run_writes_is_one(folder: Path, tmp_path: Path) -> None:
    networks = dict(SupirPipeline.from_pretrained(folder).components)
    learning = add_layers(networks, StageOptions(stage="lora", lora_target="both", lora_rank=2))
    torch.manual_seed(0)
    for module in learning.values():
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter)
    save_adapter(learning, tmp_path / "lora.safetensors")
    source = save(tmp_path / "x.png")
    pipeline = SupirPipeline.from_pretrained(folder)
    quick = {"num_steps": 2, "min_size": 64, "scale": 1.0}
    [plain] = pipeline(str(source), **quick)
    [made] = pipeline(str(source), lora=str(tmp_path / "lora.safetensors"), **quick)
    assert {name for name, found in pipeline.get_list_adapters().items() if found} == {"unet", "adaptor"}
    assert (made.picture.pixels - plain.picture.pixels).abs().max() > 0.01
    assert (
        made.record["adapters"]
        == Model(folder=folder).identity_with(RestoreOptions(lora=str(tmp_path / "lora.safetensors")))["adapters"]
    )
    [again] = pipeline(str(source), **quick)
    assert torch.equal(again.picture.pixels, plain.picture.pixels)


def test_how_they_are_written() -> None:
    assert split_loras(r"C:\a.safetensors:0.5 | b.safetensors|C:\c.safetensors") == (
        Lora(r"C:\a.safetensors", 0.5), Lora("b.safetensors"), Lora(r"C:\c.safetensors"),
    )  # fmt: skip
    for text in ("a:11", "a|", ":0.5", "a:nan", "a|a:0.5"):
        with pytest.raises(OptionError, match="lora"):
            RestoreOptions(lora=text)
