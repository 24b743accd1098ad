"""The ablation: one thing changed at a time, the paper's claims, what is not run said, and real variants of a model."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from skimage.data import astronaut
from typer.testing import CliRunner

from evaluation.test_metrics import tensor
from supir.cli.main import app
from supir.evaluation import ablation
from supir.evaluation.ablation import GIVEN, STUDIES, TRAINED, Variant, claims, claims_table, variants
from supir.evaluation.pareto_plot import draw_frontier
from supir.evaluation.summary import Score
from supir.image import Picture, write
from supir.options import restore_options
from supir.pipeline import SupirPipeline
from tiny import save_tiny_model, tiny_pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def score(method: str, picture: str, **values: float) -> Score:
    return Score(recipe="sr4", picture=picture, method=method, values=values)


def test_every_variant_is_an_option_set_of_its_own() -> None:
    titles = [variant.title for study in STUDIES.values() for variant in study]
    assert len(set(titles)) == len(titles)
    for study, rows in STUDIES.items():
        different = {(variant.model, variant.robust, restore_options(**variant.options)) for variant in rows}
        assert len(different) == len(rows), study


def test_options_over_every_variant_reach_those_of_the_words_too() -> None:
    pipeline = tiny_pipeline()
    [words] = [each for each in STUDIES["words"] if each.name == "both"]
    assert words.method(pipeline, "quality").identity["options"]["text_guidance"] == 2
    assert words.method(pipeline, "quality", text_guidance=4.0).identity["options"]["text_guidance"] == 4
    [swept] = [each for each in STUDIES["text"] if each.name == "3"]
    assert swept.method(pipeline, "quality", text_guidance=4.0).identity["options"]["text_guidance"] == 3


def test_claims_are_about_variants_that_exist() -> None:
    names = {study: {variant.name for variant in rows} for study, rows in STUDIES.items()}
    for claim in claims():
        assert {claim.before, claim.after} <= names[claim.study], claim


def test_what_the_paper_found_is_read_from_its_numbers() -> None:
    found = {(claim.what, claim.measure): claim for claim in claims()}
    sft = found["ZeroSFT in place of ZeroConv", "psnr"]
    assert sft.paper == "PSNR 19.47 → 20.66"
    assert sft.better
    assert found["ZeroSFT in place of ZeroConv", "efficientnet_lite0_distance"].better  # LPIPS fell
    assert not found["negative words alone", "psnr"].better
    assert not found["tau_r from 4 to 0.5: blurry", "niqe"].better


def test_a_claim_holds_or_does_not_or_nothing_changed() -> None:
    scores = [
        score("connectors zero-conv", "a", psnr=20, ssim=0.5, niqe=6),
        score("connectors zero-conv", "b", psnr=24, ssim=0.5, niqe=6),
        score("connectors zero-sft", "a", psnr=23, ssim=0.4, niqe=6.001),
        score("connectors zero-sft", "b", psnr=23, ssim=0.55, niqe=6.001),
    ]
    rows = [line.split(" | ") for line in claims_table(scores, ["sr4", "never run"]).splitlines()[2:]]
    assert [row[4:] for row in rows] == [
        ["PSNR 22.00 → 23.00", "yes", "1 of 2", "yes |"],
        ["SSIM-Y 0.500 → 0.475", "no", "1 of 2", "no |"],
        ["NIQE 6.00 → 6.00", "no", "0 of 2", "no change |"],
    ]
    assert claims_table([], ["sr4"]) == ""


def test_what_cannot_run_is_said_with_how_to_get_it() -> None:
    ready, left_out = variants(["connectors", "encoder"], {"zero-sft": "a model"})
    assert [variant.title for variant in ready] == ["connectors zero-sft", "encoder plain", "encoder robust"]
    assert left_out == [
        f"connectors zero-conv: needs --trained zero-conv=FOLDER, a model made by {TRAINED['zero-conv']}"
    ]


@torch.no_grad()
def test_the_plain_encoder_takes_the_place_of_the_robust_one_and_nothing_else(model: Path) -> None:
    pipeline = SupirPipeline.from_pretrained(model)
    low = tensor(astronaut()[:32, :48])[None]
    robust, plain = (
        Variant(study="encoder", name=str(r), robust=r).method(pipeline, "fast", min_size=64, num_steps=2)
        for r in (True, False)
    )
    assert robust.identity != plain.identity
    assert not torch.equal(robust(low, 64, 96), plain(low, 64, 96))
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    other = ablation.with_plain_encoder(pipeline)
    assert other.unet is pipeline.unet
    coder = pipeline.autoencoder
    found, expected, before = (
        encode(pixels).latent_dist.mode()
        for encode in (other.autoencoder.encode_degraded, coder.encode, coder.encode_degraded)
    )
    assert torch.equal(found, expected)
    assert not torch.equal(found, before)


def test_the_plot_holds_every_curve_and_point_and_is_the_same_twice(tmp_path: Path) -> None:
    scores = [
        score(name, "a", psnr=20 + k, niqe=6 - k, efficientnet_lite0_distance=1 - k / 10)
        for k, name in enumerate(["bicubic", "text 1", "text 2"])
    ]
    curves = {"text": ["text 1", "text 2"], "control": ["control 1"]}
    first = draw_frontier(scores, "sr4", curves, ["bicubic", "preview"], tmp_path / "a.svg").read_bytes()
    assert draw_frontier(scores, "sr4", curves, ["bicubic", "preview"], tmp_path / "b.svg").read_bytes() == first
    assert first.startswith(b"<?xml")
    assert b"<!-- bicubic -->" in first
    assert b"<!-- preview -->" not in first  # it was not run
    assert b"<!-- PSNR" in first


@pytest.mark.slow
def test_the_command(model: Path, tmp_path: Path) -> None:
    write(Picture(pixels=tensor(astronaut()[:112, :112])), tmp_path / "good" / "a.png")
    common = ["--data", str(tmp_path / "good"), "--model", str(model), "--recipes", "sr4", "--preset", "fast"]
    common += ["--set", "min_size=64", "--set", "num_steps=1"]
    asked = ["benchmark", "ablation", *common, "--measures", "psnr,niqe", "--studies", "encoder,text,connectors"]
    outputs = []
    for _ in range(2):
        result = CliRunner().invoke(app, [*asked, "--trained", f"zero-sft={model}", "-o", str(tmp_path / "out")])
        assert result.exit_code == 0, result.output
        assert "not run: connectors zero-conv: needs --trained zero-conv=FOLDER" in result.output
        files = ("table.csv", "claims.md", "frontier_sr4.svg")
        outputs.append([(tmp_path / "out" / file).read_bytes() for file in files])
    assert outputs[0] == outputs[1]
    methods = [row["method"] for row in csv.DictReader(outputs[0][0].decode().splitlines())]
    assert {"fast", "encoder plain", "text 0", "text 4", "connectors zero-sft"} <= set(methods)
    assert "connectors zero-conv" not in methods


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--studies", "colour"], "unknown study 'colour'"),
        (["--trained", "better=here"], "--trained better"),
        (["--preset", "best"], "preset"),
    ],
)
def test_wrong_words_are_named(tmp_path: Path, more: list[str], message: str) -> None:
    write(Picture(pixels=tensor(astronaut()[:64, :64])), tmp_path / "a.png")
    result = CliRunner().invoke(
        app, ["benchmark", "ablation", "--data", str(tmp_path), "-o", str(tmp_path / "out"), *more]
    )
    assert result.exit_code == 2
    assert message in result.output
    assert GIVEN not in TRAINED
