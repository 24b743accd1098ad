"""What every parity test shares: the fixture folder and the tiny models built through the real key map."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from parity import reference_fixtures
from parity.reference_fixtures import ReferenceFixtures, build_tiny
from supir.models.adaptor import SupirAdaptor
from supir.models.autoencoder import SupirAutoencoder
from supir.models.unet import SupirUNet

# The same module, whether a test calls it by its package or not.
sys.modules.setdefault("reference_fixtures", reference_fixtures)


@pytest.fixture(scope="session")
def fixtures(request: pytest.FixtureRequest) -> ReferenceFixtures:
    """The folder named by --fixtures."""
    folder = Path(request.config.getoption("reference_fixtures"))
    if not (folder / "index.json").is_file():
        pytest.fail(f"--fixtures {folder}: not a folder of reference fixtures (it has no index.json)")
    return ReferenceFixtures(folder)


@pytest.fixture(scope="session")
def tiny_models(fixtures: ReferenceFixtures) -> dict[str, Any]:
    """The tiny UNet, adaptor and autoencoder, float32, from original keys through the key map, nothing left over."""
    return build_tiny(fixtures.tiny_state_dict(), fixtures.tiny_config)


@pytest.fixture(scope="session")
def tiny_unet(tiny_models: dict[str, Any]) -> SupirUNet:
    """Shared by the session: copy it before changing it (`copy.deepcopy(tiny_unet).double()`)."""
    return tiny_models["unet"]


@pytest.fixture(scope="session")
def tiny_adaptor(tiny_models: dict[str, Any]) -> SupirAdaptor:
    """Shared by the session: copy it before changing it."""
    return tiny_models["adaptor"]


@pytest.fixture(scope="session")
def tiny_autoencoder(tiny_models: dict[str, Any]) -> SupirAutoencoder:
    """Shared by the session: copy it before changing it."""
    return tiny_models["autoencoder"]
