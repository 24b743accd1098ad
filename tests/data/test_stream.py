"""The loader: every sample once, whoever shares the stream; resumed in the middle; broken pictures replaced."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from data.photographs import OPTIONS, RULES, photo, save
from supir.data.build import build
from supir.data.options import BuildOptions
from supir.data.photos import Photos, Sample
from supir.data.stream import CYCLE, Order, PhotoStream
from supir.errors import ImageReadError, ImageTooLargeError, OptionError


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """23 photographs in 5 shards, and 6 faces in 2."""
    root = tmp_path_factory.mktemp("sets")
    for name, count, seed in (("photos", 23, 0), ("faces", 6, 100)):
        for number in range(count):
            save(root / name / f"{name} {number:02}.png", photo(seed + number, 64, 64))
        build([root / name], root / f"{name}-set", options=OPTIONS)
    return root / "photos-set", root / "faces-set"


def names(samples: Iterable[Sample]) -> list[str]:
    return [Path(sample.source).stem for sample in samples]


def first(stream: PhotoStream, count: int) -> list[str]:
    return names(stream[position] for position in range(count))


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2), (3, 0)])
def test_an_epoch_is_every_sample_once_over_ranks_and_workers(
    sets: tuple[Path, Path], world: int, workers: int
) -> None:
    shares = []
    for rank in range(world):
        positions = range(rank, 23, world)
        shares.append(names(DataLoader(PhotoStream(sets[0]), batch_size=None, sampler=positions, num_workers=workers)))
    merged = [shares[position % world][position // world] for position in range(23)]
    assert sorted(merged) == [f"photos {number:02}" for number in range(23)]
    assert merged == first(PhotoStream(sets[0]), 23)


def test_any_position_is_reached_directly_and_after_travelling(sets: tuple[Path, Path]) -> None:
    stream = PhotoStream(sets, [0.8, 0.2], seed=4)
    expected = first(stream, 40)
    sent = pickle.loads(pickle.dumps(stream))
    assert names(sent[position] for position in (39, 3)) == [expected[39], expected[3]]
    assert sent.identity == stream.identity != PhotoStream(sets, seed=4).identity
    with pytest.raises(OptionError, match="window is 0 and seed 0"):
        PhotoStream(sets, window=0)


@settings(max_examples=40, deadline=None)
@given(begin=st.integers(0, 200), world=st.integers(1, 4), weighted=st.booleans(), seed=st.integers(0, 5))
def test_resumed_anywhere_exactly_the_rest_follows(
    sets: tuple[Path, Path], begin: int, world: int, weighted: bool, seed: int
) -> None:
    photos = Photos(sets, [3, 1] if weighted else None)
    order = Order(photos, weighted=weighted, seed=seed, window=2)
    fresh = Order(photos, weighted=weighted, seed=seed, window=2)
    expected = [order.at(position) for position in range(260)]
    assert [fresh.at(position) for position in range(begin, 260)] == expected[begin:]
    assert expected != [Order(photos, weighted=weighted, seed=seed + 1, window=2).at(p) for p in range(260)]
    if not weighted:
        for epoch in range(260 // 29):
            assert sorted(expected[29 * epoch : 29 * (epoch + 1)]) == list(range(29))


def test_faces_are_mixed_in_by_weight_and_each_folder_evenly(sets: tuple[Path, Path]) -> None:
    photos = Photos(sets, [0.9, 0.1])
    order = Order(photos, weighted=True, seed=0, window=4)
    drawn = Counter(order.at(position) for position in range(2 * CYCLE))
    faces = {number: count for number, count in drawn.items() if number >= 23}
    assert sum(faces.values()) == 200
    assert len(drawn) == 29
    assert max(faces.values()) - min(faces.values()) <= 1
    others = [drawn[number] for number in range(23)]
    assert max(others) - min(others) <= 1
    first = sum(order.at(position) >= 23 for position in range(CYCLE // 2))
    assert 20 <= first <= 80  # spread over the cycle, not in a heap
    with pytest.raises(OptionError, match="weight is below"):
        Order(Photos(sets, [1, 1e-5]), weighted=True, seed=0, window=4)


def test_reads_stay_within_a_window_of_shards(sets: tuple[Path, Path]) -> None:
    photos = Photos(sets[0])
    order = Order(photos, weighted=False, seed=1, window=2)
    shards = [int(photos.indices[0][order.at(position)]["shard"]) for position in range(23)]
    assert len(set(shards[:8])) <= 2
    runs = [shards[0]] + [b for a, b in pairwise(shards) if a != b]
    assert len(runs) > 5  # mixed inside the window


def damaged_copy(source: Path, out: Path, number: int) -> Path:
    out.mkdir()
    for path in source.iterdir():
        if path.is_file():
            (out / path.name).write_bytes(path.read_bytes())
    entry = Photos(source).indices[0][number]
    shard = out / f"shard-{int(entry['shard']):06}.tar"
    data = bytearray(shard.read_bytes())
    data[int(entry["picture"]) + 60 : int(entry["picture"]) + 1000] = bytes(940)
    shard.write_bytes(data)
    return out


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_replaced_counted_and_logged(
    sets: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    broken = damaged_copy(sets[0], tmp_path / "set", 7)
    stream = PhotoStream(broken)
    with caplog.at_level(logging.WARNING):
        found = names(DataLoader(stream, batch_size=None, sampler=range(23), num_workers=workers))
    expected = first(PhotoStream(sets[0]), 24)
    place = expected.index("photos 07")
    assert found == [*expected[:place], expected[place + 1], *expected[place + 1 : 23]]
    assert stream.num_broken == 1
    if workers == 0:
        assert "left out" in caplog.text
        assert "damaged" in caplog.text
    with pytest.raises(ImageReadError, match=r"shard-000001\.tar: sample 000001000002: damaged"):
        Photos(broken).sample(7)
    random = np.random.default_rng(0)
    assert "photos 07" not in {Path(Photos(broken).draw(random).source).stem for _ in range(80)}


def test_pictures_of_a_torn_shard_are_told_once_and_counted_each_time(
    sets: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torn = damaged_copy(sets[0], tmp_path / "set", 7)
    shard = torn / "shard-000002.tar"
    shard.write_bytes(shard.read_bytes()[:3000])  # all five pictures of it
    stream = PhotoStream(torn)
    with caplog.at_level(logging.WARNING):
        assert len(first(stream, 3 * 23)) == 3 * 23
    assert stream.num_broken >= 3 * 6
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(told) == len(set(told)) == 6


def test_a_cut_shard_a_missing_shard_and_a_size_limit(sets: tuple[Path, Path], tmp_path: Path) -> None:
    broken = damaged_copy(sets[0], tmp_path / "set", 7)
    with (broken / "shard-000002.tar").open("r+b") as stream:
        stream.truncate(3000)
    (broken / "shard-000003.tar").unlink()
    photos = Photos(broken)
    with pytest.raises(ImageReadError, match="beyond the end"):
        photos.sample(14)
    with pytest.raises(ImageReadError, match="No such file"):
        photos.sample(15)
    with pytest.raises(ImageTooLargeError, match="64 x 64 pixels; allowed are 4000"):
        Photos(broken, max_pixels=4000).sample(0)
    with pytest.raises(ImageReadError, match="in a row"):
        PhotoStream(broken, max_pixels=4000)[0]


def test_what_is_no_data_set_is_a_sentence(sets: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no finished data set"):
        Photos(tmp_path)
    for damage in (b"", b"\x93NUMPY", np.lib.format.magic(1, 0) + b"\xff\xff"):
        (tmp_path / "index.npy").write_bytes(damage)
        with pytest.raises(OptionError, match="damaged"):
            Photos(tmp_path)
    np.save(tmp_path / "index.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(OptionError, match="damaged"):
        Photos(tmp_path)
    with pytest.raises(OptionError, match="weights"):
        Photos(sets, [1.0])
    save(tmp_path / "in" / "small.png", photo(0, 20, 20))
    assert build([tmp_path / "in"], tmp_path / "none", options=BuildOptions(rules=RULES)).num_samples == 0
    with pytest.raises(OptionError, match="without pictures"):
        Photos(tmp_path / "none")


def test_photos_travel_and_share_no_position(sets: tuple[Path, Path]) -> None:
    photos = Photos(sets)
    assert len(photos) == 29
    first = photos.sample(28)
    copy = pickle.loads(pickle.dumps(photos))
    assert copy.sample(28).key == first.key
    assert np.array_equal(copy.sample(28).pixels, first.pixels)
    with pytest.raises(IndexError):
        photos.sample(29)
    share = np.mean([photos.draw(np.random.default_rng(n)).source.count("faces") > 1 for n in range(300)])
    assert 0.1 < share < 0.32
