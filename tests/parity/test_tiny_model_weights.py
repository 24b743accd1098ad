"""The weights recipe gives the recorded weights, key by key."""

from __future__ import annotations

from parity.reference_fixtures import ReferenceFixtures


def test_recipe_gives_every_recorded_weight(fixtures: ReferenceFixtures) -> None:
    recorded = fixtures.json("tiny_model_weights")["weights"]
    assert set(fixtures.tiny_state_dict()) == {key for key in recorded if key != "denoiser.sigmas"}
