"""The table: means, verdict, and the whole script at tiny size."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage.data import astronaut, coffee

from evaluation.test_metrics import tiny_weights  # noqa: F401  (a fixture)
from supir.evaluation.summary import Score, markdown_table, mean_values, verdict
from tiny import save_tiny_model

ROOT = Path(__file__).parents[2]


def score(method: str, picture: str, seconds: float | None = None, **values: float) -> Score:
    return Score(recipe="sr4", picture=picture, method=method, values=values, seconds=seconds)


SCORES = [
    score("bicubic", "a", psnr=24, efficientnet_lite0_distance=0.5, niqe=9),
    score("bicubic", "b", psnr=26, efficientnet_lite0_distance=0.7, niqe=11),
    score("preview", "a", psnr=27, efficientnet_lite0_distance=0.3, niqe=6),
    score("preview", "b", psnr=29, efficientnet_lite0_distance=0.5, niqe=8),
    score("result", "a", 2.0, psnr=26, efficientnet_lite0_distance=0.4, niqe=4),
    score("result", "b", 4.0, psnr=28.5, efficientnet_lite0_distance=0.45, niqe=5),
    score("truth", "a", psnr=math.inf, niqe=3),
]


def test_means() -> None:
    assert mean_values(SCORES, "sr4", "result") == {
        "pictures": 2,
        "psnr": 27.25,
        "efficientnet_lite0_distance": pytest.approx(0.425),
        "niqe": 4.5,
        "seconds": 3,
    }
    assert mean_values(SCORES, "sr4", "truth") == {"pictures": 1, "niqe": 3}
    assert mean_values(SCORES, "sr4", "nobody") == {"pictures": 0}


def test_table() -> None:
    lines = markdown_table(SCORES).splitlines()
    assert lines[0] == "| recipe | method | pictures | PSNR ↑ | distance ↓ | NIQE ↓ | seconds |"
    assert lines[4] == "| sr4 | result | 2 | 27.25 | 0.425 | 4.50 | 3.00 |"
    assert lines[5] == "| sr4 | truth | 1 | – | – | 3.00 | – |"
    assert len({line.count("|") for line in lines}) == 1


def test_verdict_says_no_where_it_is_no() -> None:
    assert verdict(SCORES, "sr4") == (
        "verdict sr4: distance better than bicubic: yes (-29.2 %, 2 of 2); "
        "distance better than preview: NO (+6.2 %, 1 of 2); "
        "NIQE better than bicubic: yes (-55.0 %, 2 of 2); "
        "NIQE better than preview: yes (-35.7 %, 2 of 2); PSNR -0.75 dB against preview"
    )


def test_verdict_compares_the_pictures_that_both_methods_have() -> None:
    capped = [*SCORES, score("Real-ESRGAN", "b", efficientnet_lite0_distance=0.44, niqe=6)]
    assert "distance better than Real-ESRGAN: NO (+2.3 %, 0 of 1)" in verdict(capped, "sr4")
    assert "NIQE better than Real-ESRGAN: yes (-16.7 %, 1 of 1)" in verdict(capped, "sr4")
    assert verdict(SCORES[:2], "sr4") == "verdict sr4: "


def test_numbers_that_are_not_finite_stay_out_of_the_file() -> None:
    assert json.loads(json.dumps(SCORES[-1].as_json(), allow_nan=False))["values"] == {"psnr": None, "niqe": 3}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import restoration_table

    return restoration_table


def test_the_script_at_tiny_size(
    bench: object,
    tmp_path: Path,
    tiny_weights: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "good").mkdir()
    Image.fromarray(astronaut()[:100, :203]).save(tmp_path / "good" / "a.png")
    Image.fromarray(coffee()[:64, :64]).save(tmp_path / "good" / "b.png")  # too small for NIQE
    model = save_tiny_model(tmp_path / "model")
    arguments = f"{tmp_path}/good --model {model} --weights {tiny_weights} --out {tmp_path}/out --real {tmp_path}/good"
    recipes = ["sr4", "default"]
    more = ["--recipes", *recipes, "--scale", "1", "--set", "num_steps=1", "min_size=16"]
    bench.main([*arguments.split(), *more])  # type: ignore[attr-defined]

    printed = capsys.readouterr().out
    assert [line.split(":")[0] for line in printed.splitlines()[:3]] == [
        f"verdict {recipe}" for recipe in (*recipes, "photographs")
    ]
    assert (tmp_path / "out" / "table.md").read_text().startswith("| recipe | method |")
    record = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert record["settings"] == {"preset": "quality", "num_steps": 1, "min_size": 16}
    found = record["scores"]
    by_key = {(one["recipe"], one["method"], one["picture"]): one for one in found}
    assert len(by_key) == len(found) == 2 * 4 * 2 + 3 * 2
    assert set(by_key["sr4", "result", "a"]["values"]) == {*bench.MEASURES, "efficientnet_lite0_distance", "niqe"}  # type: ignore[attr-defined]
    assert "niqe" not in by_key["sr4", "result", "b"]["values"]
    assert set(by_key["photographs", "result", "a"]["values"]) == {"niqe"}
    assert by_key["default", "result", "a"]["seconds"] > 0
    for name in (*recipes, "photographs"):
        columns = 3 if name == "photographs" else 4
        assert Image.open(tmp_path / "out" / f"{name}.png").size == (320 * columns, 320 * 2)


def test_a_picture_is_measured_as_the_file_would_be(bench: object) -> None:
    values = bench.rounded(torch.tensor([-1.2, -0.9999, 0.5, 1.0]))  # type: ignore[attr-defined]
    assert values.tolist() == pytest.approx([-1, -1, 191 / 127.5 - 1, 1])
