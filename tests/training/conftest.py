"""Two photographs, and one thread."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from smoke_runs import ROOT

from one_thread import one_thread


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second thread, and beside other work wait for it."""
    with one_thread():
        yield


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two photographs, one with a caption: the example, and one made of coloured shapes."""
    folder = tmp_path_factory.mktemp("photographs")
    shutil.copy(ROOT / "examples" / "photo.jpg", folder)
    (folder / "photo.txt").write_text("a cat\n")
    coarse = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "shapes.png"), cv2.resize(coarse, (120, 100), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `supir convert` made of a file laid out as SDXL's."""
    from sdxl_shaped import converted_sdxl

    return converted_sdxl(tmp_path_factory.mktemp("sdxl"))
