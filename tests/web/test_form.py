"""The form is made of what `options.py` says: the same fields, defaults, ranges and choices, in every preset."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import files

from playwright.sync_api import expect

from supir.options import DEFAULT_PRESET, PRESETS, TRADE_OFFS, RestoreOptions, restore_options
from supir.options.audit import AuditOptions
from supir.prompts import NEGATIVE_PROMPT, POSITIVE_PROMPT
from supir.service.validation import FORMATS, SubmissionOptions
from web.conftest import Visit
from web.site import WebServer, choose, gradient, open_photo

READ = """inputs => inputs.map(input => ({
    name: input.name, kind: input.type, value: input.type === 'checkbox' ? input.checked : input.value,
    min: input.min, max: input.max, step: input.step, about: input.labels[0]?.title,
    choices: [...input.options ?? []].map(option => option.value), labels: input.labels.length,
}))"""
FIELDS = "#fields [id^=option-]"
WORDS = json.loads(files("supir.service").joinpath("page/words.en.json").read_text())


def test_fields_ranges_and_defaults_are_those_of_the_options(visit: Visit) -> None:
    page = visit()
    audit = {"audit": SubmissionOptions.fields()["audit"], **AuditOptions.fields()}
    specs = {**RestoreOptions.fields(), **audit}
    words = {"positive_prompt": POSITIVE_PROMPT, "negative_prompt": NEGATIVE_PROMPT}
    assert page.eval_on_selector_all("[name=preset]", "all => all.map(one => one.value)") == list(TRADE_OFFS)
    assert page.locator("[name=preset]:checked").input_value() == DEFAULT_PRESET
    page.locator("#expert summary").click()
    for preset in PRESETS:
        page.locator(f"[name=preset][value={preset}]").check()
        assert WORDS[f"preset.{preset}.help"] in page.locator(".preset", has=page.locator(":checked")).inner_text()
        found = {field["name"]: field for field in page.eval_on_selector_all(FIELDS, READ)}
        assert sorted(found) == sorted(specs)
        values = {"audit": False, **dataclasses.asdict(AuditOptions()), **dataclasses.asdict(restore_options(preset))}
        for name, spec in specs.items():
            field, value = found[name], values[name]
            assert field["about"].startswith(f"{name}: {spec.doc}")  # the field's term, behind the photographer's word
            assert {f"option.{name}", f"option.{name}.help"} <= set(WORDS), "say what photographers call it"
            assert field["labels"] == 1
            assert field["choices"] == list(spec.choices)
            if spec.is_number:
                assert (field["kind"], float(field["min"]), float(field["max"])) == (
                    "number", float(spec.low), float(spec.high)
                )  # fmt: skip
                assert field["step"] == ("1" if spec.kind is int else "any")
                assert (None if field["value"] == "" else float(field["value"])) == value
                assert field["value"] or spec.may_be_off
            else:
                assert field["value"] == (words.get(name, value) if value is None else value)
                assert (field["kind"] == "checkbox") == (spec.kind is bool)
    assert page.eval_on_selector_all("#format option", "all => all.map(one => one.value)") == ["", *FORMATS]


def test_what_is_typed_is_what_is_asked_for(server: WebServer, visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient())
    page.locator("#presets [value=fidelity]").check()
    choose(page, seed=2**63 - 1, prompt='say "hi"\n<b>', negative_prompt="", eta="0.50", restoration_guidance="")
    page.locator("#fields [name=color_fix]").select_option("adain")
    page.locator("#fields [name=reference_quirks]").check()
    page.locator("#format").select_option("webp")
    page.locator("#restore").click()
    expect(page.locator(".what").first).to_contain_text("seed")
    job = server.ended(server.jobs()[0]["id"])
    expected = restore_options(
        "fidelity", seed=2**63 - 1, prompt='say "hi"\n<b>', negative_prompt="", eta=0.5, restoration_guidance="off",
        color_fix="adain", reference_quirks=True, num_steps=3, min_size=64, scale=1.0, text_guidance=1.0,
    )  # fmt: skip
    assert job["options"] == dataclasses.asdict(expected)
    assert (job["state"], job["format"]) == ("done", ".webp")


def test_back_to_the_presets(visit: Visit) -> None:
    page = visit()
    choose(page, scale=3, num_steps=7)
    expect(page.locator(".field.changed")).to_have_count(2)
    page.get_by_role("button", name="Scale: back to the preset's").click()
    assert page.locator("#fields [name=scale]").input_value() == "2"
    page.locator("#presets [value=fast]").check()
    assert page.locator("#fields [name=num_steps]").input_value() == "7"  # what the user said stays
    choose(page, num_steps="")
    page.locator("#fields [name=num_steps]").blur()
    assert page.locator("#fields [name=num_steps]").input_value() == str(PRESETS["fast"]["num_steps"])
    expect(page.locator(".field.changed")).to_have_count(0)
