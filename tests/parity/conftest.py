"""What every parity test shares: the fixture folder and the tiny models built through the real key map."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from reference_fixtures import ReferenceFixtures  # noqa: E402


@pytest.fixture(scope="session")
def fixtures(request: pytest.FixtureRequest) -> ReferenceFixtures:
    """The folder named by --fixtures: `.json(name)`, `.tensors(name)`, `.recipe(shapes, seed)`, `.tiny_state_dict()`."""
    folder = Path(request.config.getoption("reference_fixtures"))
    if not (folder / "index.json").is_file():
        pytest.fail(f"--fixtures {folder}: not a folder of reference fixtures (it has no index.json)")
    return ReferenceFixtures(folder)
