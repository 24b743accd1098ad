"""How good photographs are made bad: single operations, and processes drawn from recipes."""

from __future__ import annotations

from importlib.util import find_spec

from supir.errors import MissingExtraError

for _module, _package in (("cv2", "opencv-python-headless"), ("scipy", "scipy")):
    if find_spec(_module) is None:
        raise MissingExtraError(_package, "train", "degrading pictures")
