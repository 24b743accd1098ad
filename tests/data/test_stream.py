"""The loader: every sample once, whoever shares the stream; resumed in the middle; broken pictures replaced."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
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


def names(samples: Iterator[Sample] | DataLoader[Sample], count: int | None = None) -> list[str]:
    return [Path(sample.source).stem for sample in islice(samples, count)]


def whole(samples: list[Sample]) -> list[Sample]:
    return samples


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2), (3, 0)])
def test_an_epoch_is_every_sample_once_over_ranks_and_workers(
    sets: tuple[Path, Path], world: int, workers: int
) -> None:
    shares = []
    for rank in range(world):
        stream = PhotoStream(sets[0], rank=rank, world=world, epochs=1, batch_size=1)
        shares.append(names(DataLoader(stream, batch_size=None, num_workers=workers)))
    merged = [shares[position % world][position // world] for position in range(23)]
    assert sorted(merged) == [f"photos {number:02}" for number in range(23)]
    assert merged == names(iter(PhotoStream(sets[0], epochs=1)))


def test_any_position_is_reached_directly_and_after_travelling(sets: tuple[Path, Path]) -> None:
    stream = PhotoStream(sets, [0.8, 0.2], seed=4, rank=1, world=2)
    expected = names(iter(PhotoStream(sets, [0.8, 0.2], seed=4)), 40)
    assert [Path(stream.at(position).source).stem for position in range(40)] == expected
    sent = pickle.loads(pickle.dumps(stream))
    assert [Path(sent.at(position).source).stem for position in (39, 3)] == [expected[39], expected[3]]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_come_in_the_same_order_for_any_number_of_workers(sets: tuple[Path, Path], workers: int) -> None:
    def batches(num_workers: int, begin: int) -> list[list[str]]:
        stream = PhotoStream(sets, [0.7, 0.3], seed=4, batch_size=4, epochs=1)
        stream.start_at(begin)
        loader = DataLoader(stream, batch_size=4, num_workers=num_workers, collate_fn=whole)
        return [[Path(sample.source).stem for sample in batch] for batch in loader]

    assert batches(workers, 6) == batches(0, 6)
    assert batches(0, 0) == batches(0, 0)[:3] + batches(0, 12)


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


def test_state_goes_through_a_checkpoint(sets: tuple[Path, Path], tmp_path: Path) -> None:
    everything = names(iter(PhotoStream(sets, [0.8, 0.2], seed=3)), 60)
    stream = PhotoStream(sets, [0.8, 0.2], seed=3)
    assert names(iter(stream), 20) == everything[:20]
    torch.save(stream.state_dict(20), tmp_path / "state.pt")
    rest = []
    for rank in range(2):  # continued by two processes where one was
        other = PhotoStream(sets, [0.8, 0.2], seed=3, rank=rank, world=2)
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        rest.append(names(iter(other), 20))
    assert [rest[place % 2][place // 2] for place in range(40)] == everything[20:]
    with pytest.raises(OptionError, match="seed of the stream is 4, of the checkpoint 3"):
        PhotoStream(sets, seed=4).load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with pytest.raises(OptionError, match="multiple of world"):
        PhotoStream(sets, world=2).start_at(3)


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
    stream = PhotoStream(broken, epochs=1)
    with caplog.at_level(logging.WARNING):
        found = names(DataLoader(stream, batch_size=None, num_workers=workers))
    expected = names(iter(PhotoStream(sets[0], epochs=1)))
    place = expected.index("photos 07")
    successor = expected[place + 1] if place + 1 < len(expected) else names(iter(PhotoStream(sets[0])), 24)[23]
    assert found == [*expected[:place], successor, *expected[place + 1 :]]
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
    stream = PhotoStream(torn, epochs=3)
    with caplog.at_level(logging.WARNING):
        found = names(iter(stream))
    assert len(found) == 3 * 23
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
        next(iter(PhotoStream(broken, max_pixels=4000)))


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
