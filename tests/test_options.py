"""What options come to together: layers of values, and what is told of an option that has no effect."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from supir.errors import OptionError
from supir.options import GOES_WITH, PRESETS, TRADE_OFFS, IdleOptionWarning, RestoreOptions, restore_options
from supir.options.combinations import come_to, levels_of, steps_of, without_effect
from supir.options.presets import trade_offs
from supir.prompts import weighted_parts
from supir.restoration.schedules import noise_schedule
from supir.weights.model_folder import BUNDLED_MODEL

BUNDLED = json.loads((BUNDLED_MODEL / "model_index.json").read_text())["presets"]
MODELS = {"full size": {}, "bundled": BUNDLED}


def told(preset: str, model: str = "full size", **overrides: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        restore_options(preset, model_presets=MODELS[model], **overrides)
    assert {each.category for each in caught} <= {IdleOptionWarning}
    assert {each.filename for each in caught} <= {__file__}, "it points at who set the option"
    return [str(each.message) for each in caught]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_guidance_of_one_is_off_whatever_the_preset(preset: str, model: str) -> None:
    options = restore_options(preset, model_presets=MODELS[model], text_guidance=1.0)
    assert steps_of(options).guidance == [1.0] * len(levels_of(options))
    constant = restore_options(preset, model_presets=MODELS[model], control_scale=0.7)
    assert steps_of(constant).control == [0.7] * len(levels_of(constant))


@pytest.mark.parametrize(("name", "partner"), GOES_WITH.items())
def test_a_number_unsets_what_goes_with_an_earlier_one(name: str, partner: str) -> None:
    value = {"tile": 512, "vae_tile": 512}.get(name, 0.8)
    other = {"tile_overlap": 128, "decoder_tile": 128}.get(partner, 0.5)
    ramp = {name: 2 * value, partner: other}
    model = {"all": ramp}
    assert getattr(restore_options(model_presets=model), partner) == other
    assert getattr(restore_options(model_presets=model, **{name: value}), partner) is None
    assert getattr(restore_options(model_presets=model, **{name: value, partner: other}), partner) == other
    assert getattr(restore_options(model_presets=model, **{partner: other}), name) == 2 * value
    assert getattr(restore_options(**ramp).replace(**{name: value}), partner) is None
    assert getattr(restore_options("fast", model_presets={"fast": {name: value}, "all": ramp}), partner) is None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_nothing_of_its_own_values(preset: str, model: str) -> None:
    assert told(preset, model) == told(preset, model, seed=3) == []
    said = [sentence.partition(":")[0] for sentence in told(preset, model, prompt="a door")]
    assert said == ["prompt changes next to nothing with this model"] * (model == "bundled")


@pytest.mark.parametrize(
    ("preset", "model", "overrides", "sentence"),
    [
        ("quality", "bundled", {"negative_prompt": "blur"}, "text guidance is 1 in the only step"),
        ("quality", "bundled", {"restoration_guidance": 4.0}, "the last step is not pulled"),
        ("quality", "bundled", {"adaptor_every": 2}, "there is one step"),
        ("fast", "bundled", {"solver": "edm_euler"}, "all solvers agree for 1 step"),
        ("quality", "bundled", {"text_guidance": 2.0, "text_guidance_start": 1.0}, "the ramp is at its start"),
        ("quality", "full size", {"eta": 0.5}, "solver edm_euler does not hear it"),
        ("fast", "full size", {"s_churn": 5.0}, "solver dpmpp_2m does not hear it"),
        ("fast", "full size", {"s_noise": 0.9}, "eta is 0"),
        ("quality", "full size", {"s_churn": 0.0, "s_noise": 0.9}, "s_churn is 0"),
        ("quality", "full size", {"s_churn": 500.0, "num_steps": 5}, "a step at most doubles"),
        ("quality", "full size", {"num_steps": 1, "restoration_guidance": 2.0}, "there is no other"),
        ("quality", "full size", {"num_steps": 2, "restoration_guidance": 2.0}, "whatever its strength"),
        ("quality", "full size", {"num_steps": 2, "grid": "log_snr"}, "karras and log_snr agree for 2 steps"),
        ("reference", "full size", {"grid": "log_snr"}, "a spacing of its own"),
        ("quality", "full size", {"solver": "reference_dpmpp_2m", "grid": "log_snr"}, "a spacing of its own"),
        ("fast", "full size", {"solver": "reference_dpmpp_2m", "restoration_guidance": 1.0}, "does not hear it"),
        ("fast", "full size", {"solver": "reference_dpmpp_2m", "control_scale_start": 0.1}, "does not hear it"),
        ("quality", "full size", {"text_guidance": 1.0, "negative_prompt": "blur"}, "text guidance is 1 in every step"),
        ("quality", "full size", {"text_guidance": 1.0, "text_guidance_low": 1.0}, "text guidance is 1 in every step"),
        ("quality", "full size", {"text_guidance": 0.0, "prompt": "a door"}, "the negative words alone are read"),
        (
            "quality",
            "full size",
            {"text_guidance_low": 5.0, "start_sigma": 3.0, "negative_prompt": ""},
            "no step begins at a noise level",
        ),
        ("quality", "full size", {"text_guidance_high": 30.0}, "every step begins at or below it"),
        ("quality", "full size", {"text_guidance_low": 0.01}, "every step begins above it"),
        ("quality", "full size", {"prompt": "a door", "tile_prompts": "sea|sky"}, "what each tile shows"),
        ("quality", "full size", {"control_scale": 0.0, "adaptor_every": 4}, "the adaptor is not heard"),
        ("reference", "full size", {"start_sigma": 1.0}, "are taken"),
    ],
)
def test_what_has_no_effect_is_told(preset: str, model: str, overrides: dict[str, Any], sentence: str) -> None:
    sentences = told(preset, model, **overrides)
    [found] = [each for each in sentences if sentence in each]
    assert found.split()[0] in overrides or "are taken" in found


def test_off_is_no_mistake_where_it_is_off_already() -> None:
    off = {"s_churn": 0.0, "adaptor_every": 1, "restoration_guidance": "off", "text_guidance_start": "off"}
    assert told("fast", **off, solver="reference_dpmpp_2m") == []
    assert told("quality", "bundled", text_guidance=1.0, eta=0.0) == []


def test_made_or_changed_directly_it_is_told_as_well() -> None:
    with pytest.warns(IdleOptionWarning, match="prompt 'a' has no effect"):
        RestoreOptions(prompt="a", tile_prompts="b|c")
    options = restore_options("fast")
    with pytest.warns(IdleOptionWarning, match="s_churn 9"):
        options.replace(s_churn=9.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RestoreOptions(solver="dpmpp_2m")
        options.replace(seed=2)


def test_the_public_second_order_solver_draws_its_noise() -> None:
    assert restore_options("reference", solver="reference_dpmpp_2m").fresh_share == 1.0
    assert restore_options("fast").fresh_share == 0.0
    assert RestoreOptions(solver="reference_dpmpp_2m", eta=0.0).fresh_share == 0.0


def test_presets_that_come_to_the_same_are_one() -> None:
    made = {preset: come_to(restore_options(preset, model_presets=BUNDLED)) for preset in PRESETS}
    assert made["quality"] == made["lightning"]
    assert len(set(made.values())) == len(PRESETS) - 1, "fast sees small photos as they are"
    full = {come_to(restore_options(preset)) for preset in PRESETS}
    assert len(full) == len(PRESETS)


def test_only_models_that_say_so_see_photos_larger() -> None:
    assert told("quality", see_larger=True) == [
        "see_larger changes next to nothing with this model: its encoder is shown every photo as it is"
    ]
    assert told("quality", "bundled", see_larger=False) == told("fast", "bundled", see_larger=True) == []
    assert trade_offs(BUNDLED)["quality"].endswith("; photos enlarged little are seen larger")
    assert "larger" not in trade_offs(BUNDLED)["fast"]


def test_what_presets_are_for_is_said_of_the_model_at_hand() -> None:
    assert trade_offs() == TRADE_OFFS
    own = {
        "all": {"num_steps": 1, "s_churn": 0.0, "text_guidance": 1.0, "start_sigma": 0.5},
        "reference": {"num_steps": 9},
    }
    told = trade_offs(own)
    assert told["quality"] == "1 step from the preview with noise of 0.5, no text guidance, no pull toward the photo"
    assert told["fast"] == told["fidelity"] == "the same as quality with this model"
    assert "steps" in told["reference"]
    assert "quirks" in told["reference"]
    one = trade_offs({"fast": {"num_steps": 4}})
    assert one["quality"] == TRADE_OFFS["quality"]
    assert one["fast"] == "4 steps from noise, text guidance 4, a pull toward the photo, tau 4"
    ramp = trade_offs({"quality": {"num_steps": 10}})["quality"]
    assert ramp == "10 steps from noise, text guidance 4 to 7.5, a pull toward the photo, tau 4"


@pytest.mark.parametrize("start_sigma", [None, 1.0, 14.6])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
@pytest.mark.parametrize(
    "kind",
    [{}, {"grid": "log_snr"}, {"grid": "trailing"}, {"reference_quirks": True}, {"solver": "reference_dpmpp_2m"}],
)
def test_levels_are_those_of_the_schedule(kind: dict[str, Any], num_steps: int, start_sigma: float | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdleOptionWarning)
        options = RestoreOptions(**kind, num_steps=num_steps, start_sigma=start_sigma)
    schedule = noise_schedule(options)
    assert levels_of(options) == pytest.approx(schedule.sigmas[:-1].tolist(), rel=1e-6)
    assert steps_of(options).churned == pytest.approx(schedule.churned.tolist(), rel=1e-6)


def test_a_manifest_with_many_prompts_is_judged_at_once() -> None:
    """What was found for one line is known for the next."""
    come_to.cache_clear()
    base = restore_options()
    for index in range(200):
        without_effect(base.replace(prompt=str(index)), ("prompt",), base)
    assert come_to.cache_info().misses < 2000


@pytest.mark.parametrize("text", ["a (red:1.2) door", "a door BREAK a cat", "(sharp, clear:0.8)"])
def test_signs_of_other_tools_are_told_once(text: str) -> None:
    with pytest.warns(
        IdleOptionWarning, match="prompt: .* read as plain letters, since prompt_weights is off"
    ) as caught:
        assert restore_options("reference", prompt=text).prompt == text
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore_options("reference", prompt="a clock (at 12:30 pm), BREAKFAST on a table (1:24 scale model)")
        restore_options(prompt=text)
    with pytest.warns(IdleOptionWarning, match="prompt_weights False has no effect: no prompt says"):
        restore_options(prompt="a door", prompt_weights=False)
    with pytest.warns(IdleOptionWarning, match="prompt: BREAK begins no other chunk"):
        restore_options(prompt="a door BREAK a cat", long_prompt="truncate")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a (red:1.2) door", [[("a ", 1), ("red", 1.2), (" door", 1)]]),
        ("((a:1.2) b:0.5)", [[("a", 0.6), (" b", 0.5)]]),
        ("a BREAK (b c:2)", [[("a ", 1)], [(" ", 1), ("b c", 2)]]),
        (r"\(a:1.2\) (b)", [[("(a:1.2) (b)", 1)]]),
        ("(x:1.2", [[("(x:1.2", 1)]]),
        ("x:1.2)", [[("x:1.2)", 1)]]),
        ("(12:30) (ratio:40) (a (b) c:2)", [[("(12:30) (ratio:40) ", 1), ("a (b) c", 2)]]),
        ("[a] ((b)) BREAKFAST", [[("[a] ((b)) BREAKFAST", 1)]]),
        ("", [[]]),
    ],
)
def test_weights_are_read_as_in_other_tools(text: str, parts: list[list[tuple[str, float]]]) -> None:
    found = weighted_parts(text)
    assert [[word for word, _ in part] for part in found] == [[word for word, _ in part] for part in parts]
    for part, expected in zip(found, parts, strict=True):
        assert [weight for _, weight in part] == pytest.approx([weight for _, weight in expected])


def test_what_a_model_does_not_use_is_told() -> None:
    presets = {"unused": {"prompt": "it never learned words", "seed": "it draws no noise"}}
    with pytest.warns(IdleOptionWarning) as caught:
        restore_options(model_presets=presets, prompt="a cat", seed=7, scale=2)
    assert sorted(str(each.message) for each in caught) == [
        "prompt changes next to nothing with this model: it never learned words",
        "seed changes next to nothing with this model: it draws no noise",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore_options(model_presets=presets, prompt="", seed=0, scale=2)


def test_detail_of_a_model_with_one_end_is_a_way_from_fidelity_to_quality() -> None:
    """Of one with two ends it is the encoder's alone; what the user sets besides stays."""
    plain, vivid = restore_options(detail=0), restore_options(detail=1)
    fidelity, quality = restore_options("fidelity"), restore_options("quality")
    for name in ("text_guidance", "text_guidance_start", "restoration_guidance"):
        assert getattr(plain, name) == getattr(fidelity, name), name
        assert getattr(vivid, name) == getattr(quality, name), name
    middle = restore_options("fidelity", detail=0.5, control_scale=0.7)
    assert (middle.text_guidance, middle.text_guidance_start, middle.control_scale) == (5.75, 2.5, 0.7)
    assert middle.restoration_guidance == pytest.approx(8**0.5)
    assert restore_options("lightning", detail=0.5).text_guidance == 1.75
    both = restore_options(model_presets={"all": {"detail": 1.0}}, detail=0.5)
    assert (both.detail, both.text_guidance) == (0.5, quality.text_guidance)
    with pytest.warns(IdleOptionWarning, match="detail changes next to nothing with this model"):
        restore_options("reference", detail=0.5)
    with pytest.raises(OptionError, match="detail is 2"):
        restore_options(detail=2)
