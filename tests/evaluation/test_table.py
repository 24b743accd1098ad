"""The table: means, verdict, times."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from evaluation.test_metrics import tiny_weights  # noqa: F401  (a fixture)
from supir.evaluation.summary import Score, mean_values, table_rows, times_table, verdict
from supir.files.report import csv_table, markdown_table

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
    lines = markdown_table(table_rows(SCORES)).splitlines()
    assert lines[:2] == [
        "| recipe | method | pictures | PSNR ↑ | distance ↓ | NIQE ↓ |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    assert lines[4] == "| sr4 | result | 2 | 27.25 | 0.425 | 4.50 |"
    assert lines[5] == "| sr4 | truth | 1 | – | – | 3.00 |"
    assert csv_table(table_rows(SCORES)).splitlines()[3] == "sr4,result,2,27.25,0.425,4.50"
    assert times_table(SCORES).splitlines()[2:] == ["| result | 2 | 3.00 |"]


def test_verdict_says_no_where_it_is_no() -> None:
    assert verdict(SCORES, "sr4", "result") == (
        "verdict sr4: distance better than bicubic: yes (-29.2 %, 2 of 2); "
        "distance better than preview: NO (+6.2 %, 1 of 2); "
        "NIQE better than bicubic: yes (-55.0 %, 2 of 2); "
        "NIQE better than preview: yes (-35.7 %, 2 of 2); PSNR -0.75 dB against preview"
    )


def test_verdict_compares_the_pictures_that_both_methods_have() -> None:
    capped = [*SCORES, score("real-esrgan", "b", efficientnet_lite0_distance=0.44, niqe=6)]
    assert "distance better than real-esrgan: NO (+2.3 %, 0 of 1)" in verdict(capped, "sr4", "result")
    assert "NIQE better than real-esrgan: yes (-16.7 %, 1 of 1)" in verdict(capped, "sr4", "result")
    assert verdict(SCORES[:2], "sr4", "result") == "verdict sr4: "


def test_a_result_is_held_against_its_rivals_alone() -> None:
    others = [*SCORES, score("fast", "a", efficientnet_lite0_distance=0.1, niqe=1)]
    assert verdict(others, "sr4", "result") == verdict(SCORES, "sr4", "result")
