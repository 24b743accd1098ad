"""Options of the test run; here and not in tests/parity so that they exist whichever test path pytest is given."""

from __future__ import annotations

from pathlib import Path

import pytest

DEFAULT_FIXTURES = Path(__file__).parent / "parity" / "fixtures"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fixtures DIR`: pytest has a `--fixtures` of its own, a listing; that one stays reachable as `--funcargs`."""
    actions = parser.optparser._option_string_actions
    if "--fixtures" in actions:
        actions.pop("--fixtures").option_strings.remove("--fixtures")
    parser.addoption(
        "--fixtures",
        type=Path,
        dest="reference_fixtures",
        default=DEFAULT_FIXTURES,
        metavar="DIR",
        help="folder of recorded reference arrays that tests/parity replays (default: tests/parity/fixtures)",
    )
