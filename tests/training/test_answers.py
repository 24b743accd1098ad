"""Answers of larger networks: whose is taken, what is stored, what a crop is, and Real-ESRGAN's file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from supir.errors import OptionError, WeightsError
from supir.training import real_esrgan
from supir.training.adversarial import adversarial_stage
from supir.training.answers import CHUNK, Answers, Teachers, asked_for_four_times, main, write_chunk
from supir.training.crops import Tiles, to_pixels, to_tensor
from supir.training.features import FeatureDistance
from supir.training.real_esrgan import RealEsrganX4
from supir.training.restoring import Restoring
from supir.weights.folder import BUNDLED_MODEL
from training.test_adversarial import features, small_model, tiles  # noqa: F401  (fixtures)

SHARES = {"light": 1.0}


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real-ESRGAN of one block and four channels."""
    for name, value in (("_BLOCKS", 1), ("_WIDTH", 4), ("_GROWTH", 2)):
        monkeypatch.setattr(real_esrgan, name, value)


@pytest.fixture
def teachers(features: Path, small_network: None) -> Teachers:  # noqa: F811
    torch.manual_seed(2)
    networks = {"crisp": small_model().restorer, "real-esrgan": asked_for_four_times(RealEsrganX4().eval())}
    return Teachers(networks, FeatureDistance(features))


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """A chunk whose pixels are their own row, column and tile."""
    folder = tmp_path / "answers"
    folder.mkdir()
    rows, columns, numbers = np.meshgrid(np.arange(192), np.arange(192), np.arange(CHUNK), indexing="ij")
    pixels = np.stack([rows, columns, numbers], -1).transpose(2, 0, 1, 3).astype(np.uint8)
    np.save(folder / "00000.npy", np.stack([pixels] * 3, 1))
    (folder / "00000.json").write_text(json.dumps({"captions": [f"tile {k}" for k in range(CHUNK)]}))
    return folder


def test_the_answer_nearest_to_the_truth_is_taken(teachers: Teachers, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wrong = clean.roll(9, dims=3)
    mixed = {
        "crisp": torch.stack([clean[0], wrong[1], clean[2]]),
        "real-esrgan": torch.stack([*wrong[:1], *clean[1:2], wrong[2]]),
    }
    monkeypatch.setattr(teachers, "answers", lambda lq: mixed)
    found, names = teachers.best(torch.zeros_like(clean), clean)
    assert names == ["crisp", "real-esrgan", "crisp"]
    assert torch.equal(found, clean)


def test_each_teacher_answers_at_the_size_it_was_asked(teachers: Teachers) -> None:
    lq = torch.rand(2, 3, 64, 96) * 2 - 1
    found = teachers.answers(lq)
    assert {name: answer.shape for name, answer in found.items()} == dict.fromkeys(("crisp", "real-esrgan"), lq.shape)
    assert all(answer.dtype == torch.float32 and answer.abs().max() <= 1 for answer in found.values())
    assert torch.allclose(found["crisp"], teachers.networks["crisp"](lq).clamp(-1, 1))


def test_a_chunk_is_the_same_again(tiles: Path, teachers: Teachers, tmp_path: Path) -> None:  # noqa: F811
    stored = []
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        write_chunk(folder, 3, Tiles(tiles), teachers, SHARES)
        stored.append(np.load(folder / "00003.npy"))
        about = json.loads((folder / "00003.json").read_text())
        assert about["captions"] == ["a photo"] * CHUNK
        assert set(about["teachers"]) <= {"crisp", "real-esrgan"}
        assert {path.name for path in folder.iterdir()} == {"00003.npy", "00003.json"}
    assert stored[0].shape == (CHUNK, 3, 192, 192, 3)
    assert np.array_equal(*stored)
    clean, degraded, answer = stored[0].transpose(1, 0, 2, 3, 4)
    assert not np.array_equal(clean, degraded)
    assert not np.array_equal(degraded, answer)


def test_a_crop_is_of_one_place_in_all_three(answers: Path) -> None:
    reader = Answers(answers)
    seen = set()
    for seed in range(60):
        three, caption = reader.crop(np.random.default_rng(seed), 64)
        assert three.shape == (3, 64, 64, 3)
        assert (three == three[:1]).all()
        rows, columns, numbers = three[0].transpose(2, 0, 1)
        assert (numbers == numbers[0, 0]).all()
        assert caption == f"tile {numbers[0, 0]}"
        assert rows.min() % 8 == columns.min() % 8 == 0
        seen.add((rows[0, 0] == rows[0, 1], columns[0, 0] > columns[-1, -1]))
    assert len(seen) >= 3  # as it was, mirrored, turned


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"holds no answers; make them with python -m supir\.training\.answers"):
        Answers(tmp_path)


def ncnn_file(model: RealEsrganX4, path: Path, half: bool) -> Path:
    """Weights as ncnn stores them: a mark, the weights filled up to four bytes, the bias in full precision."""
    parts = []
    for convolution in model.convolutions:
        values = convolution.weight.detach().numpy().astype("<f2" if half else "<f4").tobytes()
        parts += [b"\x47\x6b\x30\x01" if half else bytes(4), values + bytes(-len(values) % 4)]
        parts.append(convolution.bias.detach().numpy().astype("<f4").tobytes())
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize("half", [False, True])
def test_weights_are_read_from_ncnns_file(tmp_path: Path, half: bool) -> None:
    model = RealEsrganX4()
    found = RealEsrganX4.from_ncnn(ncnn_file(model, tmp_path / "weights.bin", half))
    for (name, mine), theirs in zip(found.named_parameters(), model.parameters(), strict=True):
        expected = theirs.half().float() if half and "weight" in name else theirs
        assert torch.equal(mine, expected), name


@pytest.mark.usefixtures("small_network")
def test_another_file_is_refused(tmp_path: Path) -> None:
    path = ncnn_file(RealEsrganX4(), tmp_path / "weights.bin", True)
    data = path.read_bytes()
    for content, message in (
        (data[:-4], "ends too early"),
        (data + b"more", "bytes"),
        (b"text", "where weights begin"),
    ):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=message):
            RealEsrganX4.from_ncnn(path)


@torch.no_grad()
@pytest.mark.usefixtures("small_network")
def test_real_esrgan_is_its_formula() -> None:
    """Once more with the layers by name, as the paper draws them (figure 4)."""
    model = RealEsrganX4()
    first, *blocks, body, up1, up2, high, last = model.convolutions
    x = torch.rand(1, 3, 8, 8) * 2 - 1

    def soft(y: Tensor) -> Tensor:
        return F.leaky_relu(y, 0.2)

    shallow = first((x + 1) / 2)
    h = shallow
    for k in range(3):
        c = blocks[5 * k : 5 * k + 5]
        a1 = soft(c[0](h))
        a2 = soft(c[1](torch.cat([h, a1], 1)))
        a3 = soft(c[2](torch.cat([h, a1, a2], 1)))
        a4 = soft(c[3](torch.cat([h, a1, a2, a3], 1)))
        h = c[4](torch.cat([h, a1, a2, a3, a4], 1)) * 0.2 + h
    h = shallow + body(h * 0.2 + shallow)
    h = soft(up1(h.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    h = soft(up2(h.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    expected = last(soft(high(h))) * 2 - 1
    torch.testing.assert_close(model(x), expected)
    assert expected.shape == (1, 3, 32, 32)


def test_the_adversarial_stage_may_learn_answers_in_place_of_the_truth(
    tmp_path: Path,
    tiles: Path,  # noqa: F811
    features: Path,  # noqa: F811
) -> None:
    folder = tmp_path / "answers"
    folder.mkdir()
    three = np.random.default_rng(0).integers(0, 256, (CHUNK, 3, 64, 64, 3), dtype=np.uint8)
    np.save(folder / "00000.npy", three)
    (folder / "00000.json").write_text(json.dumps({"captions": [""] * CHUNK}))
    model = small_model()
    stage = adversarial_stage(tiles, model, features, batch=4, crop=64, answers=folder)
    _, values = stage.loss(np.random.default_rng(7), 0.5)
    reader, rng = Answers(folder), np.random.default_rng(7)
    crops = [reader.crop(rng, 64)[0] for _ in range(4)]
    degraded, wanted = (to_tensor([crop[k] for crop in crops]) for k in (1, 2))
    with torch.no_grad():
        expected = (model.restorer(degraded) - wanted).abs().mean()
    assert values["pixel"] == pytest.approx(expected.item(), rel=1e-5)


def test_one_teacher_answers_alone(features: Path) -> None:  # noqa: F811
    crisp = small_model().restorer
    alone = Teachers({"crisp": crisp}, FeatureDistance(features))
    lq = torch.rand(2, 3, 64, 64) * 2 - 1
    found, names = alone.best(lq, -lq)
    assert names == ["crisp", "crisp"]
    assert torch.allclose(found, crisp(lq).clamp(-1, 1))


def order(tiles: Path, features: Path, out: Path, *more: object) -> list[str]:  # noqa: F811
    """The command line that makes answers."""
    return [str(part) for part in ("answers", "--tiles", tiles, "--features", features, "--out", out, *more)]


def test_a_model_answers_by_its_one_step(
    tmp_path: Path,
    tiles: Path,  # noqa: F811
    features: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supir.training.answers.CHUNK", 2)
    out = tmp_path / "answers"
    monkeypatch.setattr("sys.argv", order(tiles, features, out, "--model", BUNDLED_MODEL, "--chunks", 1))
    main()
    _, degraded, answer = np.load(out / "00000.npy").transpose(1, 0, 2, 3, 4)
    expected = Restoring.load(BUNDLED_MODEL).restored(to_tensor(list(degraded)))
    assert np.abs(np.stack(to_pixels(expected)).astype(int) - answer).max() <= 1
    assert set(json.loads((out / "00000.json").read_text())["teachers"]) == {"model"}


def test_without_a_network_no_answer_is_made(
    tmp_path: Path,
    tiles: Path,  # noqa: F811
    features: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", order(tiles, features, tmp_path / "answers"))
    with pytest.raises(OptionError, match="name one by --crisp, --model or --real-esrgan"):
        main()
