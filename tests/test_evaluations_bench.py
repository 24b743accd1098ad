"""The bench of fewer evaluations, whole, on one small picture and a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supir import write
from test_pipeline import picture
from tiny import save_tiny_model

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_row_says_its_options_cost_and_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import fewer_evaluations as bench

    (tmp_path / "data").mkdir()
    write(picture(96, 96), tmp_path / "data" / "one.png")
    model, out = save_tiny_model(tmp_path / "model"), tmp_path / "out"
    arguments = ["--data", str(tmp_path / "data"), "--out", str(out), "--model", str(model)]
    bench.main([*arguments, "--side", "64", "--steps", "4", "--guidance", "3"])
    rows = {row["title"]: row for row in json.loads((out / "evaluations.json").read_text())["rows"]}
    assert rows["plain 4"]["evaluations"] == 8
    assert rows["plain 4"]["options"]["text_guidance"] == 3
    assert rows["guided never"]["evaluations"] == 4
    assert rows["guided late half"]["evaluations"] == 6
    assert 0 < rows["deep-cache-every 10"]["evaluations"] < rows["deep-cache-every 2"]["evaluations"] < 8
    assert rows["adaptor-every 2"]["changed"]["adaptor_every"] == 2
    assert rows["adaptor-every 2"]["change"]["psnr"] > 10
    assert all("psnr" in row["quality"] for row in rows.values())
    table = (out / "evaluations.md").read_text()
    assert "min_size=64" in table
    assert table.count("\n") == len(rows) + 2
    assert (out / "evaluations.svg").read_text().rstrip().endswith("</svg>")
