"""What a captioner is shown: the clean preview, no larger than captioners look, whatever the options of the result."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caption.chat_server import ChatServer
from caption.test_commands import endpoint, report, run
from jobs.pictures import FLAGS, save
from supir import image
from supir.jobs.captioning import MAX_SIDE, of_preview
from supir.jobs.model import Model
from supir.options import RestoreOptions
from supir.pipeline import SupirPipeline
from supir.tensors import memory


@pytest.mark.parametrize(
    ("width", "height", "options", "longest"),
    [
        (20000, 10000, {"scale": 4.0}, 1024),
        (20000, 10000, {"scale": 0.05, "min_size": 64}, 1000),
        (300, 200, {"scale": 4.0}, 1024),
        (10, 10, {"scale": 1.0}, 10),
        (400, 300, {"scale": 2.0, "min_size": 64}, 800),
        (5000, 50, {"scale": 1.0, "min_size": 64}, 1024),
    ],
)
def test_a_preview_for_a_captioner_is_small(width: int, height: int, options: dict[str, float], longest: int) -> None:
    asked = RestoreOptions(**options, memory=8.0, vae_tile=2048)
    found = of_preview(asked, width, height)
    side = min(1.0, MAX_SIDE / max(width, height))
    size = image.working_size(round(width * side), max(1, round(height * side)), found.scale, found.min_size)
    assert max(size.output_height, size.output_width) == pytest.approx(longest, abs=1)
    assert size.padded_width * size.padded_height <= 1088 * 1088
    assert (found.memory, found.vae_tile, found.seed) == (None, 512, asked.seed)
    assert of_preview(asked.replace(memory=None), width, height).vae_tile == 2048


def test_a_large_photo_is_captioned_small(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (12, 40, 3), dtype=np.uint8)
    Image.fromarray(values).resize((2600, 780)).save(tmp_path / "wide.png")
    line = ("caption", tmp_path / "wide.png", "--model", folder, "--min-size", 64, "--scale", 4, "--device", "cpu")
    assert run(*line, *endpoint(server)).exit_code == 0
    [sent] = server.pictures()
    assert sent.size == (1024, 307)


@pytest.mark.slow
def test_the_previewer_has_left_when_the_networks_come(
    folder: Path, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it filled on its device has been given back, also where the captioner is somebody else's."""
    opened: list[weakref.ref[SupirPipeline]] = []
    seen: list[str] = []
    open_previewer, open_all, give_back = Model.open_previewer, Model.open, memory.give_back

    def previewer(model: Model) -> SupirPipeline:
        found = open_previewer(model)
        opened.append(weakref.ref(found))
        return found

    def given_back() -> None:
        give_back()
        seen.append("previewer gone" if opened[0]() is None else "previewer there")

    monkeypatch.setattr(Model, "open_previewer", previewer)
    monkeypatch.setattr(Model, "open", lambda model, place=0: seen.append("opened") or open_all(model, place))
    monkeypatch.setattr(memory, "give_back", given_back)
    line = ("restore", "--model", folder, *FLAGS, save(tmp_path / "photo.png"), *endpoint(server))
    assert run(*line).exit_code == 0
    assert seen[:2] == ["previewer gone", "opened"]


@pytest.mark.slow
def test_memory_may_be_counted(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    source = save(tmp_path / "photo.png")
    line = ("restore", "--model", folder, *FLAGS, source, "--json", "--memory", 8, *endpoint(server))
    assert report(run(*line))["restored"][0]["words_from"] == "captioner"


@pytest.mark.slow
def test_prompts_of_tiles_are_words_enough(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    source, out = save(tmp_path / "photo.png"), tmp_path / "out.png"
    line = ("restore", "--model", folder, *FLAGS, source, "-o", out, *endpoint(server), "--positive-prompt", "sharp")
    result = run(*line, "--tile-prompts", "a door")
    assert (result.exit_code, server.asked) == (0, []), result.output
    assert "warning: the captioner is not asked" in result.stderr
    record = image.read_record(out)
    assert (record["prompt"], record["words_from"]) == ("a door sharp", "typed")
    unread = run(*line, "--overwrite", "--text-guidance", 0)
    assert (unread.exit_code, server.asked) == (0, []), "no prompt is read at all"


@pytest.mark.parametrize("captioner", ["none", "beside"])
def test_a_cache_of_nothing_is_refused(folder: Path, tmp_path: Path, captioner: str) -> None:
    line = ("restore", save(tmp_path / "photo.png"), "--model", folder, "--no-caption-cache", "--captioner", captioner)
    result = run(*line)
    assert result.exit_code == 2
    assert "caption_cache is for a captioner that looks at pictures" in " ".join(result.stderr.split())
