"""The nodes as a graph runs them: real classes, the bundled model at 64 pixels or a tiny one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from comfy_nodes import host
from comfy_nodes.host import folder_paths, model_management
from comfy_nodes.schemas import SNAPSHOT, schemas_of
from supir import image
from supir.image import Picture
from supir.options import CaptionOptions, NetworkOptions, RestoreOptions, restore_options
from supir.options.published import published_options
from supir.pipeline import SupirPipeline
from tiny import save_tiny_model, tiny_pipeline

ROOT = Path(__file__).parents[2]
SMALL = {"scale": 1.0, "min_size": 64, "vae_tile": 64}
OWN = {"all": {"num_steps": 2, "min_size": 64, "tile": 64, "vae_tile": 64}}
"""A tiny model's own numbers, so that nothing is large."""
FEW = {"scale": 1.0}
ELSEWHERE = {
    "always", "lora", "first", "blend_mask", "salvage", "marking", "reference_quirks", "faces", "see_larger",
}  # fmt: skip
"""Options that a graph has in other places: the node that loads, ComfyUI's own nodes that enlarge, the socket of a
mask, which ComfyUI's own finders of faces make too, files, the presets reference and fast; and whether a good photo is
kept, as nodes restore what they are given."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ComfyUI looks for model folders: a tiny one is there."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_model(folder / "tiny", presets=OWN)
    return folder


@pytest.fixture(autouse=True)
def _folders(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ComfyUI's folders, with nothing in them; and nothing told of the run before."""
    for kind in ("input", "output", "temp"):
        (tmp_path / kind).mkdir()
        getattr(folder_paths, f"set_{kind}_directory")(str(tmp_path / kind))
    for kind in ("checkpoints", "loras"):
        (tmp_path / "models" / kind).mkdir(parents=True)
        known = folder_paths.folder_names_and_paths.get(kind, ([], {".safetensors"}))[1]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / "models" / kind)], known))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "supir", ([str(models)], set()))
    host.NODES["SupirLoad"].SCHEMA = None  # the page asks for the lists anew, too
    folder_paths.filename_list_cache.clear()
    host.progress.clear()
    yield
    model_management.interrupt_current_processing(False)


def photo(height: int = 48, width: int = 64, batch: int = 1) -> Tensor:
    """A smooth IMAGE."""
    coarse = torch.rand(batch, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").movedim(1, -1)


def graph(
    pixels: Tensor, mask: Tensor | None = None, load: dict[str, Any] | None = None, **given: Any
) -> dict[str, Any]:
    """Load SUPIR, Load Image, SUPIR Restore: 1, 2, 3."""
    values = host.defaults(
        "SupirRestore", pipeline=["1", 0], image=["2", 0], **({"mask": ["2", 1]} if mask is not None else {}), **given
    )
    return {
        "1": {"class_type": "SupirLoad", "inputs": host.defaults("SupirLoad", **(load or {}))},
        "2": {"class_type": "LoadImage", "inputs": {"image": pixels, "mask": mask}},
        "3": {"class_type": "SupirRestore", "inputs": values},
    }


TINY = {"weights": "folder", "weights.folder": "tiny"}


def test_the_bundled_model_restores_as_the_library_does() -> None:
    restored, preview, record = host.run(graph(photo(), **SMALL), "3")
    [expected] = SupirPipeline.from_pretrained()(next(image.from_batch(photo())), **SMALL)
    assert restored.shape == preview.shape == (1, 48, 64, 3)
    assert torch.equal(restored, image.to_batch([expected.picture]))
    assert torch.equal(preview, image.to_batch([expected.preview]))
    assert json.loads(record) == expected.record
    assert [each[:2] for each in host.progress] == [(1, 1)]


def test_steps_are_told_with_pictures_of_what_comes() -> None:
    host.run(graph(photo(batch=2), load=TINY, **FEW), "3")
    assert [each[:2] for each in host.progress] == [(index, 4) for index in range(1, 5)]
    shown = [each[2] for each in host.progress if each[2] is not None]
    assert shown
    assert all(isinstance(each, Image.Image) and each.mode == "RGB" for each in shown)


def test_a_number_that_stays_is_the_models_own_and_one_that_was_changed_is_heard() -> None:
    records = [
        json.loads(json.loads(host.run(graph(photo(), load=TINY, **given), "3")[2])["options"])
        for given in (FEW, FEW | {"preset.text_guidance": 2.0, "preset.restoration_guidance": -1, "seed": 7})
    ]
    own = restore_options("quality")
    assert records[0]["text_guidance"] == own.text_guidance
    assert records[0]["num_steps"] == OWN["all"]["num_steps"] != own.num_steps
    assert (records[1]["text_guidance"], records[1]["text_guidance_start"]) == (2.0, own.text_guidance_start)
    assert records[1]["restoration_guidance"] is None
    assert records[1]["seed"] == 7


def test_every_preset_offers_its_own_numbers() -> None:
    for name in ("quality", "fidelity", "fast", "lightning", "reference"):
        inputs, fresh = host.defaults("SupirRestore", preset=name), restore_options(name)
        for field, value in inputs.items():
            if field.startswith("preset."):
                held = getattr(fresh, field.removeprefix("preset."))
                assert value == (-1 if held is None else held), field


def test_the_mask_says_where_the_preview_stays() -> None:
    mask = torch.zeros(1, 48, 64)
    mask[:, :, 32:] = 1
    restored, preview, record = host.run(graph(photo(), mask, load=TINY, blend=1.0, color_fix="none", **FEW), "3")
    difference = (restored - preview).abs().mean((0, 1, 3))
    assert difference[:28].min() > 1e-3
    assert difference[36:].max() < 1e-3
    assert json.loads(json.loads(record)["options"])["blend_mask"] == "MASK/mask0.png"


def test_the_black_square_that_comes_with_a_picture_without_transparency_is_no_mask() -> None:
    given = {"load": TINY, "blend": 0.5, **FEW}
    plain, masked = (host.run(graph(photo(), mask, **given), "3")[0] for mask in (None, torch.zeros(1, 64, 64)))
    assert torch.equal(plain, masked)


def test_a_mask_of_another_shape_is_refused_in_a_sentence() -> None:
    with pytest.raises(Exception, match=r"blend_mask is 10 x 40 pixels and the photo 64 x 48"):
        host.run(graph(photo(), torch.ones(1, 40, 10), load=TINY, blend=0.5, **FEW), "3")


def test_transparency_goes_through() -> None:
    alpha = torch.linspace(0, 1, 64).expand(1, 48, 64)[..., None]
    restored, _, _ = host.run(graph(torch.cat([photo(), alpha], -1), load=TINY, **FEW), "3")
    assert torch.allclose(restored[..., 3:], alpha, atol=1e-6)


def test_stop_ends_in_comfyuis_own_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = graph(photo(), load=TINY, **FEW)
    told = host.ComfyAPI().execution.__class__.set_progress

    def press_stop(self: Any, value: float, max_value: float, **more: Any) -> None:
        told(self, value, max_value, **more)
        model_management.interrupt_current_processing()

    with monkeypatch.context() as patched:
        patched.setattr(host._Execution, "set_progress", press_stop)
        with pytest.raises(model_management.InterruptProcessingException):
            host.run(prompt, "3")
    assert [each[:2] for each in host.progress] == [(1, 2)], "left after the step at which stop was pressed"
    assert host.run(prompt, "3")[0].shape == (1, 48, 64, 3), "and the next run is as any other"


def test_one_set_of_weights_is_open_at_a_time_and_opened_once() -> None:
    from pack import work

    prompts = [graph(photo(), load=TINY, **FEW), graph(photo(), load=TINY, seed=3, **FEW), graph(photo(), **SMALL)]
    first, second, third = (host.run(prompt, "1")[0] for prompt in prompts)
    assert first.pipeline is second.pipeline
    assert not any(torch.is_inference(each) for each in first.pipeline.unet.parameters())
    assert third.pipeline is not first.pipeline
    assert [*work._opened.values()] == [third.pipeline]


def test_changed_files_are_loaded_anew(models: Path) -> None:
    node, given = host.NODES["SupirLoad"], {"weights": {"weights": "folder", "folder": "tiny"}}
    before, first = node.fingerprint_inputs(**given), host.run(graph(photo(), load=TINY), "1")[0]
    assert node.fingerprint_inputs(**given) == before
    index = models / "tiny" / "model_index.json"
    index.write_text(index.read_text() + "\n")
    assert node.fingerprint_inputs(**given) != before
    assert host.run(graph(photo(), load=TINY), "1")[0].pipeline is not first.pipeline


def test_the_clean_preview_alone() -> None:
    values = host.defaults("SupirPreview", pipeline=["1", 0], image=["2", 0], **SMALL)
    prompt = graph(photo(), load=TINY) | {"4": {"class_type": "SupirPreview", "inputs": values}}
    [preview] = host.run(prompt, "4")
    expected = tiny_pipeline().preview(next(image.from_batch(photo())), **SMALL)
    assert torch.equal(preview, image.to_batch([expected]))


def test_a_caption_is_asked_of_an_endpoint_and_becomes_the_prompt() -> None:
    from caption.chat_server import ChatServer

    with ChatServer() as server:
        values = host.defaults(
            "SupirCaption", pipeline=["1", 0], image=["2", 0], captioner=server.url, caption_model="eye"
        )
        prompt = graph(photo(), load=TINY, **FEW) | {"4": {"class_type": "SupirCaption", "inputs": values}}
        prompt["3"]["inputs"]["prompt"] = ["4", 0]
        record = json.loads(host.run(prompt, "3")[2])
        [seen] = server.pictures()
    assert seen.size == (64, 48)
    assert json.loads(record["options"])["prompt"].startswith("A photo numbered ")


def test_a_captioner_that_reads_files_is_refused() -> None:
    values = host.defaults("SupirCaption", pipeline=["1", 0], image=["2", 0])
    prompt = graph(photo(), load=TINY) | {"4": {"class_type": "SupirCaption", "inputs": values}}
    with pytest.raises(ValueError, match=r"captioner is 'none'; a graph needs a model's folder or an endpoint's URL"):
        host.run(prompt, "4")


def test_from_file_to_file_keeps_what_a_graph_loses(tmp_path: Path) -> None:
    given = Picture(
        pixels=photo()[0].movedim(-1, 0) * 2 - 1, bits=16, dpi=(300.0, 300.0), texts=(("Comment", "hello"),)
    )
    image.write(given, tmp_path / "input" / "photo.png")
    values = host.defaults("SupirRestoreFile", pipeline=["1", 0], source="photo.png", target="a/b.png", **SMALL)
    prompt = graph(photo()) | {"4": {"class_type": "SupirRestoreFile", "inputs": values}}
    path, record = host.run(prompt, "4")
    assert Path(path) == tmp_path / "output" / "a" / "b.png"
    found = image.read(path)
    assert (found.bits, found.texts[0]) == (16, ("Comment", "hello"))
    assert found.dpi == pytest.approx((300, 300), abs=0.1)
    assert image.read_record(path)["seed"] == json.loads(record)["seed"] == "0"
    assert [each[:2] for each in host.progress] == [(1, 1)]
    with pytest.raises(ValueError, match=r"b\.png is there; choose another target, or turn overwrite on"):
        host.run(prompt, "4")
    values["overwrite"] = True
    assert host.run(prompt, "4")[0] == path


@pytest.mark.parametrize(
    ("name", "value"), [("source", "../secret.png"), ("target", "/etc/passwd"), ("target", ""), ("target", "a/../..")]
)
def test_a_strangers_workflow_reaches_no_other_folder(tmp_path: Path, name: str, value: str) -> None:
    image.write(Picture(pixels=torch.zeros(3, 48, 64)), tmp_path / "input" / "photo.png")
    image.write(Picture(pixels=torch.zeros(3, 48, 64)), tmp_path / "secret.png")
    paths = {"source": "photo.png", "target": "b.png", name: value}
    values = host.defaults("SupirRestoreFile", pipeline=["1", 0], **paths, **FEW)
    prompt = graph(photo(), load=TINY) | {"4": {"class_type": "SupirRestoreFile", "inputs": values}}
    with pytest.raises(ValueError, match=f"{name} is .*; it must be a file in .*, named from there"):
        host.run(prompt, "4")
    assert [*(tmp_path / "output").iterdir()] == []


def test_memory_is_given_back_after_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[str] = []
    monkeypatch.setattr(SupirPipeline, "rest", lambda self: rests.append("rested"))
    for given, count in (({"give_back": True}, 2), ({"give_back": False}, 0)):
        rests.clear()
        host.run(graph(photo(), load=given, **SMALL), "3")
        assert len(rests) == count


def test_example_workflows_run_as_they_are_stored(tmp_path: Path) -> None:
    from caption.chat_server import ChatServer

    Image.fromarray((photo()[0].numpy() * 255).astype("uint8")).save(tmp_path / "input" / "photo.tif")
    folder = host.PACK / "example_workflows"
    wanted = {"restore": "SupirRestore", "caption_and_restore": "SupirRestore", "restore_file": "SupirRestoreFile"}
    assert {path.stem for path in folder.glob("*.json")} == {path.stem for path in folder.glob("*.jpg")} == {*wanted}
    with ChatServer() as server:
        for name, kind in wanted.items():
            prompt = host.prompt_of(json.loads((folder / f"{name}.json").read_text()))
            for node in prompt.values():
                if node["class_type"] == "LoadImage":
                    node["inputs"] = {"image": photo(), "mask": torch.zeros(1, 64, 64)}
                elif node["class_type"] == "SupirCaption":
                    node["inputs"]["captioner"] = server.url
                node["inputs"] |= {key: 64 for key in ("min_size",) if key in node["inputs"]}
            [number] = [number for number, node in prompt.items() if node["class_type"] == kind]
            assert host.run(prompt, number)
    assert (tmp_path / "output" / "photo.restored.tif").is_file()


def test_what_nodes_offer_is_what_the_options_say() -> None:
    known = {**RestoreOptions.fields(), **CaptionOptions.fields(), **NetworkOptions.fields()}
    held = 0
    for node in ("SupirLoad", "SupirPreview", "SupirCaption", "SupirRestore", "SupirRestoreFile"):
        for each in host.flat(host.NODES[node].GET_SCHEMA().inputs):
            field, about = known.get(each.id), each.as_dict()
            if field is None or each.id == "lora":
                continue
            held += 1
            assert about["tooltip"].startswith(field.doc)
            if field.is_number:
                assert (about["min"], about["max"]) == (-1 if field.optional else field.low, field.high), each.id
            elif field.choices:
                assert about["options"] == [*field.choices]
    assert held > 100
    inputs = host.flat(host.NODES["SupirRestore"].GET_SCHEMA().inputs)
    assert {*RestoreOptions.fields()} - {each.id for each in inputs} == ELSEWHERE
    assert all(field.low >= 0 for field in known.values() if field.may_be_off), "-1 means unset"


def test_the_audit_shows_what_was_pasted_in() -> None:
    after = photo(96, 128)
    after[:, 24:56, 40:80] = torch.rand(32, 40, 3, generator=torch.Generator().manual_seed(3))
    values = host.defaults("SupirAudit", before=["1", 0], after=["2", 0])
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": photo(96, 128)}},
        "2": {"class_type": "LoadImage", "inputs": {"image": after}},
        "3": {"class_type": "SupirAudit", "inputs": values},
    }
    overlay, expected, report = host.run(prompt, "3")
    assert overlay.shape == (1, 96, 128, 3)
    assert expected.shape == (1, 96, 128)
    assert expected[0, 30:50, 46:74].mean() > 1.5 * expected[0, 70:].mean()
    said = json.loads(report)
    assert said["kept"] + said["reconstructed"] + said["invented"] == pytest.approx(1, abs=1e-3)
    assert said["contradictions"]


def test_ids_order_and_defaults_are_those_that_stored_graphs_rely_on() -> None:
    """A stored graph knows widgets by their place. `python -m comfy_nodes.schemas` writes the file anew."""
    assert schemas_of(host.NODES) == json.loads(SNAPSHOT.read_text())


BASE = "juggernautXL_v9Rdphoto2Lightning.safetensors"
LOADER = {"model": ["8", 0], "supir_model": "SUPIR-v0F_fp16.safetensors", "fp8_unet": False, "diffusion_dtype": "auto"}


def published(sampler: str = "RestoreDPMPP2MSampler") -> dict[str, Any]:
    """A graph as the page stores it: names, places and values of the few-step workflow that people know."""

    def node(number: int, kind: str, inputs: dict[str, int | None], values: list[Any]) -> dict[str, Any]:
        return {
            "id": number,
            "type": kind,
            "inputs": [{"name": name, "link": link} for name, link in inputs.items()],
            "widgets_values": values,
        }

    return {
        "nodes": [
            node(1, "LoadImage", {}, ["photo.png", "image"]),
            node(2, "CheckpointLoaderSimple", {}, [BASE]),
            node(3, "SUPIR_model_loader_v2", {"model": 1, "clip": 2, "vae": 3},
                 ["SUPIR-v0F_fp16.safetensors", False, "auto", False]),
            node(4, "SUPIR_first_stage", {"SUPIR_VAE": 4, "image": 5}, [True, 512, 512, "auto"]),
            node(5, "SUPIR_encode", {"SUPIR_VAE": 6, "image": 7}, [True, 512, "auto"]),
            node(6, "SUPIR_conditioner", {"SUPIR_model": 8, "latents": 9, "captions": None},
                 ["high quality, detailed, photograph", "bad quality, blurry, messy"]),
            node(7, "SUPIR_sample", {"SUPIR_model": 10, "latents": 11, "positive": 12, "negative": 13},
                 [174277, "fixed", 10, 2, 1.5, 5, 1.003, 1, 1, 0.9, 1, False, sampler, 1024, 512]),
            node(8, "SUPIR_decode", {"SUPIR_VAE": 14, "latents": 15}, [True, 512]),
        ],
        "links": [
            [1, 2, 0, 3, 0, "MODEL"], [2, 2, 1, 3, 1, "CLIP"], [3, 2, 2, 3, 2, "VAE"], [4, 3, 1, 4, 0, "SUPIRVAE"],
            [5, 1, 0, 4, 1, "IMAGE"], [6, 4, 0, 5, 0, "SUPIRVAE"], [7, 4, 1, 5, 1, "IMAGE"],
            [8, 3, 0, 6, 0, "SUPIRMODEL"],
            [9, 4, 2, 6, 1, "LATENT"], [10, 3, 0, 7, 0, "SUPIRMODEL"], [11, 5, 0, 7, 1, "LATENT"],
            [12, 6, 0, 7, 2, "SUPIR_cond_pos"], [13, 6, 1, 7, 3, "SUPIR_cond_neg"], [14, 3, 1, 8, 0, "SUPIRVAE"],
            [15, 7, 0, 8, 1, "LATENT"],
        ],
    }  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What files were to be loaded, in place of which a tiny model comes: full-size ones are not at hand."""
    found: dict[str, Any] = {}
    for kind, name in (
        ("checkpoints", BASE),
        ("checkpoints", LOADER["supir_model"]),
        ("loras", "style.safetensors"),
    ):
        (Path(folder_paths.get_folder_paths(kind)[0]) / name).write_bytes(b"")
    folder_paths.filename_list_cache.clear()

    def from_single_file(sdxl: str, supir: str, **networks: Any) -> SupirPipeline:
        found.update(networks, files=[Path(sdxl).name, Path(supir).name])
        pipeline = tiny_pipeline()
        pipeline.distilled = "lightning"
        return pipeline

    monkeypatch.setattr(SupirPipeline, "from_single_file", from_single_file)
    return found


def test_a_workflow_of_the_retired_nodes_opens_and_runs(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = host.replace(host.prompt_of(published()))
    assert {node["class_type"] for node in prompt.values()} & {*host.replaced} == set()
    prompt["1"]["inputs"] = {"image": photo(64, 64)}
    options: list[RestoreOptions] = []
    restore = SupirPipeline.__call__

    def watched(self: SupirPipeline, picture: Any, given: RestoreOptions, **more: Any) -> Any:
        options.append(given)
        return restore(self, picture, given.replace(num_steps=2), **more)

    monkeypatch.setattr(SupirPipeline, "__call__", watched)
    [result] = host.run(prompt, "8")
    assert result.shape == (1, 64, 64, 3)
    assert asked["files"] == [BASE, "SUPIR-v0F_fp16.safetensors"]
    [used] = options
    expected = restore_options(
        "lightning", solver="dpmpp_2m", num_steps=10, text_guidance_start=2.0, text_guidance=1.5, eta=1.0,
        control_scale_start=1.0, control_scale=0.9, s_noise=1.003, seed=174277, scale=1.0, min_size=64,
        color_fix="none", vae_tile=512, decoder_tile=512, positive_prompt="high quality, detailed, photograph",
        negative_prompt="bad quality, blurry, messy",
    )  # fmt: skip
    assert used == expected


def test_the_base_may_come_through_a_lora(asked: dict[str, Any]) -> None:
    prompt = {
        "8": {
            "class_type": "LoraLoader",
            "inputs": {"model": ["9", 0], "lora_name": "style.safetensors", "strength_model": 0.8},
        },
        "9": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": BASE}},
        "1": {
            "class_type": "SUPIR_model_loader_v2",
            "inputs": LOADER | {"clip": ["8", 1], "vae": ["9", 2], "fp8_unet": True},
        },
    }
    loaded, _ = host.run(host.replace(copy.deepcopy(prompt)), "1")
    assert Path(loaded.lora.rpartition(":")[0]).name == "style.safetensors"
    assert loaded.lora.endswith(":0.8")
    assert asked["quantize"] == "float8"
    prompt["9"] = {"class_type": "ModelMergeSimple", "inputs": {"model1": ["5", 0]}}
    with pytest.raises(
        ValueError, match="the base comes from ModelMergeSimple, not from a checkpoint's file; use Load SUPIR"
    ):
        host.run(host.replace(copy.deepcopy(prompt)), "1")


def test_the_oldest_node_does_all(asked: dict[str, Any]) -> None:
    widgets = {each.id: each.default for each in host.NODES["SupirOldUpscale"].INPUTS[1:]}
    files = {"supir_model": LOADER["supir_model"], "sdxl_model": BASE}
    inputs = widgets | files | {"image": ["1", 0], "steps": 2, "scale_by": 2.0, "use_tiled_sampling": True}
    prompt = host.replace(
        {
            "1": {"class_type": "LoadImage", "inputs": {"image": photo(64, 64)}},
            "2": {"class_type": "SUPIR_Upscale", "inputs": inputs},
        }
    )
    [result] = host.run(prompt, "2")
    assert result.shape == (1, 128, 128, 3)


def test_words_that_are_not_known_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"sampler is 'RestoreHeunSampler'; .*: RestoreEDMSampler, RestoreDPMPP2MSampler"
    ):
        published_options({"sampler": "RestoreHeunSampler"})
