"""Options of the test run; here and not in tests/parity so that they exist whichever path pytest is given."""

from __future__ import annotations

from pathlib import Path

import pytest

DEFAULT_FIXTURES = Path(__file__).parent / "parity" / "fixtures"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fixtures",
        type=Path,
        default=DEFAULT_FIXTURES,
        metavar="DIR",
        help="folder of recorded reference arrays that tests/parity replays (default: tests/parity/fixtures)",
    )
