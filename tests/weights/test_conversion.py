"""Original files into a model folder and back into models: the same tensors, and nothing lost in silence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ModelMixin
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from loading import load_components, load_single_files
from supir.errors import KeyMismatchError, OptionError, WeightsError
from supir.models.adaptor import SupirAdaptor
from supir.models.autoencoder import SupirAutoencoder
from supir.models.unet import SupirUNet
from supir.weights.catalog import SDXL_BASE, SUPIR, file_hash, folder_hash, recognise
from supir.weights.convert import ConversionReport, convert
from supir.weights.layout import ADAPTOR, AUTOENCODER, CLIP_G, DEGRADED_ENCODER, UNET
from weights.conftest import OriginalModel

CLASSES: dict[str, Any] = {
    "unet": SupirUNet,
    "adaptor": SupirAdaptor,
    "autoencoder": SupirAutoencoder,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}


@pytest.fixture(scope="module")
def converted(original: OriginalModel, tmp_path_factory: pytest.TempPathFactory) -> ConversionReport:
    """A float32 folder whose shards are small, so that there are several."""
    folder = tmp_path_factory.mktemp("conversion")
    sdxl, supir = original.save(folder)
    progress: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        progress.append((done, total))

    report = convert(
        sdxl,
        supir,
        folder / "model",
        dtype="float32",
        shard_bytes=4_000_000,
        head_dims=original.head_dims,
        on_progress=note,
    )
    assert progress == sorted(progress)
    assert progress[-1][0] == progress[-1][1]
    return report


def test_folder_loads_and_holds_the_same_tensors(original: OriginalModel, converted: ConversionReport) -> None:
    """The folder's models, loaded by diffusers and transformers, against those loaded straight from the originals."""
    direct, _ = load_components(original.sdxl | original.supir, head_dims=original.head_dims)
    for name, kind in CLASSES.items():
        loaded = kind.from_pretrained(converted.folder / name).state_dict()
        expected = direct[name].state_dict()
        assert loaded.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(loaded[key], tensor), f"{name}.{key}"


def test_single_tensors_land_where_they_should(original: OriginalModel, converted: ConversionReport) -> None:
    """A few by hand, so that key map and loader cannot agree on a mistake."""
    unet = SupirUNet.from_pretrained(converted.folder / "unet")
    autoencoder = SupirAutoencoder.from_pretrained(converted.folder / "autoencoder")
    tower = CLIPTextModelWithProjection.from_pretrained(converted.folder / "text_encoder_2")
    sdxl, supir = original.sdxl, original.supir
    pairs = [
        (unet.up_blocks[0].upsamplers[0].conv.weight, sdxl[UNET + "output_blocks.2.2.conv.weight"]),
        (unet.down_blocks[1].resnets[0].conv_shortcut.weight, sdxl[UNET + "input_blocks.4.0.skip_connection.weight"]),
        (unet.connectors[3].norm_context.weight, supir[UNET + "project_modules.3.norm2.weight"]),
        (
            autoencoder.decoder.up_blocks[0].resnets[0].conv1.weight,
            sdxl[AUTOENCODER + "decoder.up.3.block.0.conv1.weight"],
        ),
        (
            autoencoder.degraded_encoder.mid_block.attentions[0].to_q.weight,
            supir[DEGRADED_ENCODER + "mid.attn_1.q.weight"][:, :, 0, 0],
        ),
        (tower.text_projection.weight, sdxl[CLIP_G + "text_projection"].T),
        (
            tower.text_model.encoder.layers[1].self_attn.v_proj.bias,
            sdxl[CLIP_G + "transformer.resblocks.1.attn.in_proj_bias"][-48:],
        ),
    ]
    for found, expected in pairs:
        assert torch.equal(found, expected)


def test_files_stay_below_the_shard_size(converted: ConversionReport) -> None:
    sizes = [path.stat().st_size for path in (converted.folder / "unet").glob("*.safetensors")]
    assert len(sizes) > 1
    assert max(sizes) < 4_200_000
    index = json.loads((converted.folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {
        path.name for path in (converted.folder / "unet").glob("*.safetensors")
    }


def test_report_records_files_hashes_and_terms(converted: ConversionReport) -> None:
    saved = json.loads((converted.folder / "conversion.json").read_text())
    for source in saved["sources"]:
        content = (converted.folder.parent / source["name"]).read_bytes()
        assert source["sha256"] == hashlib.sha256(content).hexdigest()
    sdxl, supir = saved["sources"]
    assert sdxl["recognised"] == ["SDXL base"]
    assert supir["recognised"] == ["SUPIR v0"]
    assert "Non-commercial" in supir["licences"][0]
    assert len(saved["keys"]["dropped"]) == 3
    assert "0 missing, 0 unexpected, 0 mis-shaped, 3 left out on purpose" in converted.summary()


def test_index_names_a_class_for_each_folder(converted: ConversionReport) -> None:
    index = json.loads((converted.folder / "model_index.json").read_text())
    assert index["_class_name"] == "SupirPipeline"
    for name, kind in CLASSES.items():
        library, class_name = index[name]
        assert class_name == kind.__name__
        assert kind.__module__.startswith(library)
        if issubclass(kind, ModelMixin):
            assert library == kind.__module__


def test_half_precision_rounds_all_but_the_autoencoder(original: OriginalModel, tmp_path: Path) -> None:
    sdxl, supir = original.save(tmp_path)
    convert(sdxl, supir, tmp_path / "half", head_dims=original.head_dims)
    [unet_file] = (tmp_path / "half" / "unet").glob("*.safetensors")
    [autoencoder_file] = (tmp_path / "half" / "autoencoder").glob("*.safetensors")
    unet = load_file(unet_file)
    assert {tensor.dtype for tensor in unet.values()} == {torch.float16}
    assert torch.equal(unet["conv_in.weight"], original.sdxl[UNET + "input_blocks.0.0.weight"].half())
    assert {tensor.dtype for tensor in load_file(autoencoder_file).values()} == {torch.float32}


def test_too_large_for_half_precision_is_an_error(original: OriginalModel, tmp_path: Path) -> None:
    key = UNET + "out.2.weight"
    large = OriginalModel(original.sdxl | {key: original.sdxl[key] * 1e6}, original.supir, original.head_dims)
    with pytest.raises(WeightsError, match=r"unet\.conv_out\.weight .*bfloat16"):
        convert(*large.save(tmp_path), tmp_path / "model", head_dims=original.head_dims)
    assert not list(tmp_path.glob("*model*"))


def test_later_file_counts(original: OriginalModel, tmp_path: Path) -> None:
    key = UNET + "out.2.bias"
    changed = OriginalModel(original.sdxl, original.supir | {key: torch.full((4,), 7.0)}, original.head_dims)
    components, report = load_single_files(*changed.save(tmp_path), head_dims=original.head_dims)
    assert report.ok
    assert components["unet"].conv_out.bias.tolist() == [7.0] * 4


def test_missing_and_mis_shaped_keys_are_named_and_never_filled(original: OriginalModel, tmp_path: Path) -> None:
    sdxl = dict(original.sdxl)
    del sdxl[UNET + "out.2.bias"]
    sdxl[UNET + "output_blocks.0.0.in_layers.0.weight"] = torch.zeros(3)
    broken = OriginalModel(sdxl, original.supir, original.head_dims).save(tmp_path)
    for strict in (True, False):
        with pytest.raises(KeyMismatchError) as caught:
            convert(*broken, tmp_path / "model", strict=strict, head_dims=original.head_dims)
        message = str(caught.value)
        assert "missing: unet.conv_out.bias (original name model.diffusion_model.out.2.bias)" in message
        assert "mis-shaped: model.diffusion_model.output_blocks.0.0.in_layers.0.weight (3,)" in message
        assert "never made up" in message
        assert not (tmp_path / "model").exists()


def test_a_damaged_part_is_not_begun_anew(original: OriginalModel, tmp_path: Path) -> None:
    """Lenient lets whole parts begin; one that lacks a single weight is a damaged file."""
    supir = dict(original.supir)
    del supir[ADAPTOR + "input_hint_block.0.bias"]
    broken = OriginalModel(original.sdxl, supir, original.head_dims).save(tmp_path)
    with pytest.raises(KeyMismatchError, match=r"missing: adaptor\.hint_conv\.bias"):
        load_single_files(*broken, strict=False, head_dims=original.head_dims)


def test_supir_file_alone_or_absent(original: OriginalModel, tmp_path: Path) -> None:
    sdxl, supir = original.save(tmp_path)
    with pytest.raises(KeyMismatchError, match="hold no adaptor"):
        convert(sdxl, None, tmp_path / "model", head_dims=original.head_dims)
    with pytest.raises(KeyMismatchError, match="SDXL"):
        convert(supir, None, tmp_path / "model", head_dims=original.head_dims)


def test_from_sdxl_alone_the_new_parts_begin_as_copies(original: OriginalModel, tmp_path: Path) -> None:
    """Where training begins: not strict, the adaptor and the degraded encoder are copies, the connectors as made."""
    sdxl, _ = original.save(tmp_path)
    components, report = load_single_files(sdxl, strict=False, head_dims=original.head_dims)
    assert report.ok
    assert report.begun == ("adaptor", "connectors", "degraded encoder")
    addresses = [parameter.data_ptr() for model in components.values() for parameter in model.parameters()]
    assert len(set(addresses)) == len(addresses)
    converted = convert(sdxl, None, tmp_path / "model", dtype="float32", strict=False, head_dims=original.head_dims)
    assert converted.keys == report
    unet, adaptor, autoencoder = (components[name] for name in ("unet", "adaptor", "autoencoder"))
    assert torch.equal(adaptor.conv_in.weight, unet.conv_in.weight)
    assert torch.equal(adaptor.mid_block.resnets[0].conv1.weight, unet.mid_block.resnets[0].conv1.weight)
    assert not adaptor.hint_conv.weight.any()
    assert torch.equal(autoencoder.degraded_encoder.conv_in.weight, autoencoder.encoder.conv_in.weight)
    assert not unet.connectors[0].zero_conv.weight.any()
    assert unet.connectors[0].norm.weight.unique().tolist() == [1.0]
    assert unet.connectors[0].mlp_shared[0].weight.std() > 0  # where it is zero, nothing behind it ever learns
    again, _ = load_single_files(sdxl, strict=False, components=("unet",), head_dims=original.head_dims)
    assert torch.equal(again["unet"].connectors[0].mlp_shared[0].weight, unet.connectors[0].mlp_shared[0].weight)


def test_existing_folders_and_wrong_dtypes_are_refused(original: OriginalModel, tmp_path: Path) -> None:
    sdxl, supir = original.save(tmp_path)
    (tmp_path / "model").mkdir()
    with pytest.raises(WeightsError, match="exists already"):
        convert(sdxl, supir, tmp_path / "model", head_dims=original.head_dims)
    with pytest.raises(OptionError, match="float16, bfloat16, float32"):
        convert(sdxl, supir, tmp_path / "other", dtype="int8", head_dims=original.head_dims)
    convert(sdxl, supir, tmp_path / "model", overwrite=True, head_dims=original.head_dims)
    first = folder_hash(tmp_path / "model")
    save_file(original.sdxl | {UNET + "out.2.bias": torch.full((4,), 1e6)}, sdxl)
    with pytest.raises(WeightsError, match="not finite"):  # found when half of the folder is written
        convert(sdxl, supir, tmp_path / "model", overwrite=True, head_dims=original.head_dims)
    assert folder_hash(tmp_path / "model") == first


def test_only_a_model_folder_and_nothing_of_somebody_elses_is_replaced(original: OriginalModel, tmp_path: Path) -> None:
    sdxl, supir = original.save(tmp_path)
    photos, out = tmp_path / "photos", tmp_path / "model"
    photos.mkdir()
    (photos / "holiday.jpg").write_bytes(b"precious")
    for _ in range(2):
        with pytest.raises(WeightsError, match="is not a model folder of ours, so it is not replaced"):
            convert(sdxl, supir, photos, overwrite=True, head_dims=original.head_dims)
        (photos / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    (photos / "model_index.json").write_text('{"_class_name": "SupirPipeline"}')
    with pytest.raises(WeightsError, match=r"also holds holiday\.jpg, which is not part of a model"):
        convert(sdxl, supir, photos, overwrite=True, head_dims=original.head_dims)
    assert (photos / "holiday.jpg").read_bytes() == b"precious"
    with pytest.raises(WeightsError, match="is a file"):
        convert(sdxl, supir, photos / "holiday.jpg", overwrite=True, head_dims=original.head_dims)
    convert(sdxl, supir, out, head_dims=original.head_dims)
    (out / "unet" / "notes.txt").write_text("mine")
    with pytest.raises(WeightsError, match=r"also holds unet/notes\.txt"):
        convert(sdxl, supir, out, overwrite=True, head_dims=original.head_dims)
    (out / "unet" / "notes.txt").unlink()
    (out / ".DS_Store").touch()
    convert(sdxl, supir, out, overwrite=True, head_dims=original.head_dims)
    assert not (out / ".DS_Store").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "model", sdxl.name, supir.name}


def test_structure_tells_what_a_file_is(original: OriginalModel) -> None:
    shapes = [{key: tuple(tensor.shape) for key, tensor in part.items()} for part in (original.sdxl, original.supir)]
    assert recognise(shapes[0]) == (SDXL_BASE,)
    assert recognise(shapes[1]) == (SUPIR,)
    assert recognise(shapes[0] | shapes[1]) == (SDXL_BASE, SUPIR)
    assert recognise({"layer.weight": (1,)}) == ()
    assert ADAPTOR + "input_hint_block.0.weight" in shapes[1]


def test_folder_hash_follows_content_and_name(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    file = tmp_path / "unet" / "a.safetensors"
    save_file({"weight": torch.zeros(3)}, file)
    first = folder_hash(tmp_path)
    listing = f"{file_hash(file)}  unet/a.safetensors\n"
    assert first == hashlib.sha256(listing.encode()).hexdigest()
    (tmp_path / "conversion.json").write_text("{}")
    assert folder_hash(tmp_path) == first
    save_file({"weight": torch.ones(3)}, file)
    assert folder_hash(tmp_path) != first
    save_file({"weight": torch.zeros(3)}, file)
    file.rename(file.with_name("b.safetensors"))
    assert folder_hash(tmp_path) != first
