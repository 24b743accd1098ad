"""What restoring does to photographs that are good already: ten of scikit-image, by the bundled model's defaults.

    python bench/clean_photographs.py [--scales 1 2] [--names grass rocket] [--out out/clean]
    python bench/clean_photographs.py --count PHOTOS        # how many of a folder's are kept, clean and damaged

Each is restored at its own size, as with ``--always``, and at twice its size, of which the table has the result reduced
again: how far it is from the photograph (PSNR, HaarPSI), and NIQE (lower is better), noise, the grid of compression and
sharpness (``supir.image.condition``) of what else there would be and by how much the result's are others. That is the
photograph itself at scale 1, and at another the photograph enlarged by interpolation and reduced again. A result is
told to be worse where it is softer, noisier or less natural by more than ``SOFTER``, ``NOISIER`` or ``STRANGER``. The
last column says what ``supir restore`` does at this scale. The pictures stay in the folder.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from PIL import Image, ImageFilter

from supir import SupirPipeline, read, write
from supir.evaluation.fidelity import haar_psi, psnr
from supir.evaluation.niqe import niqe
from supir.files.report import markdown_table
from supir.image import Picture, condition_of, find_pictures, resize

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "motorcycle_left", "rocket",
)  # fmt: skip
SOFTER, NOISIER, STRANGER = 0.05, 0.5, 0.5
"""Of sharpness, of noise in levels of 8 bits, and of NIQE."""


def photograph(name: str, folder: Path) -> Path:
    """A file of scikit-image's, without a second compression."""
    [found] = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
    path = folder / f"{name}.png"
    Image.open(found).convert("RGB").save(path)
    return path


def measured(path: Path) -> dict[str, float]:
    """NIQE and the condition of a picture."""
    found = condition_of(path)
    assert found is not None
    return {"niqe": niqe(read(path).rgb), "noise": found.noise, "grid": found.grid, "sharpness": found.sharpness}


def restored(pipeline: SupirPipeline, path: Path, scale: float) -> dict[str, Any]:
    """One row: a photograph at one scale."""
    before = read(path)
    [result] = pipeline(before, scale=scale)
    made = resize(result.picture.rgb, before.height, before.width)
    target, plain = (path.with_name(f"{path.stem}.{name}{scale:g}.png") for name in ("x", "plain"))
    write(Picture(pixels=made), target)
    enlarged = resize(before.rgb, round(scale * before.height), round(scale * before.width))
    write(Picture(pixels=resize(enlarged, before.height, before.width)), plain)
    then, now = measured(plain), measured(target)
    change = {name: now[name] - then[name] for name in then}
    worse = [
        word
        for word, passed in (
            ("softer", change["sharpness"] < -SOFTER),
            ("noisier", change["noise"] > NOISIER),
            ("stranger", change["niqe"] > STRANGER),
        )
        if passed
    ]
    kept = scale == 1 and condition_of(path).good  # type: ignore[union-attr]
    return {
        "photograph": path.stem,
        "scale": scale,
        "psnr": psnr(made, before.rgb),
        "haar_psi": haar_psi(made, before.rgb),
        "before": then,
        "change": change,
        "worse": worse,
        "kept": kept,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    heads = ("photograph", "scale", "PSNR, dB", "HaarPSI", "NIQE", "noise", "grid", "sharpness", "worse", "restore")

    def cells(row: dict[str, Any]) -> list[str]:
        measures = [
            f"{row['before'][name]:.{digits}f} {row['change'][name]:+.{digits}f}"
            for name, digits in (("niqe", 1), ("noise", 1), ("grid", 2), ("sharpness", 2))
        ]
        plain = [row["photograph"], f"{row['scale']:g}", f"{row['psnr']:.1f}", f"{row['haar_psi']:.3f}"]
        return [*plain, *measures, ", ".join(row["worse"]) or "no", "keeps" if row["kept"] else "restores"]

    return markdown_table([heads, *map(cells, rows)])


def damaged(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """A photograph as it is, and in each way worse."""
    yield "clean", image
    values = np.asarray(image).astype(float)
    for deviation in (5, 10, 25):
        noise = np.random.default_rng(0).normal(0, deviation, values.shape)
        yield f"noise of {deviation}", Image.fromarray((values + noise).round().clip(0, 255).astype(np.uint8))
    for quality in (90, 75, 50, 30):
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        yield f"JPEG of quality {quality}", Image.open(stream).convert("RGB")
    yield "blurred by 1.2 pixels", image.filter(ImageFilter.GaussianBlur(1.2))
    small = image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
    yield "halved and enlarged again", small.resize(image.size, Image.Resampling.BICUBIC)


def counted(photographs: Path) -> dict[str, int]:
    """How many of a folder's photographs are kept, by what was done to them."""
    kept: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        for each in find_pictures([photographs]):
            for damage, image in damaged(Image.open(each).convert("RGB")):
                image.save(path)
                found = condition_of(path)
                kept[damage] = kept.get(damage, 0) + (found is not None and found.good)
    return kept


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0, 2.0])
    parser.add_argument("--names", nargs="+", choices=PHOTOGRAPHS, default=list(PHOTOGRAPHS))
    parser.add_argument("--out", type=Path, default=Path("out/clean"))
    parser.add_argument("--count", type=Path, metavar="PHOTOS", help="only count how many of these are kept")
    chosen = parser.parse_args(arguments)
    if chosen.count:
        print("\n".join(f"{number} kept, {damage}" for damage, number in counted(chosen.count).items()))
        return
    chosen.out.mkdir(parents=True, exist_ok=True)
    pipeline = SupirPipeline.from_pretrained(None, dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    rows = []
    for scale in chosen.scales:
        for name in chosen.names:
            rows.append(restored(pipeline, photograph(name, chosen.out), scale))
            print(rows[-1], flush=True)
    (chosen.out / "clean.json").write_text(json.dumps(rows, indent=1) + "\n")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
