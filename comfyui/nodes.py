"""The nodes. What they do is `SupirPipeline`'s; what they offer is made of its options."""

import json
import tempfile

import folder_paths
import torch
from comfy_api.v0_0_2 import io

from supir.audit import audit
from supir.files import path_within, stamp_of
from supir.image import from_batch, read_size, scale_within, to_batch, write_masks
from supir.options import CaptionOptions, NetworkOptions, RestoreOptions
from supir.options.audit import AuditOptions
from supir.pipeline import SupirPipeline
from supir.weights.device import find_device

from .fields import UNSET, option_inputs, overrides, widget
from .work import Loaded, Progress, SupirModel, folders, open_once, stop_if_asked

NONE = "none"


def load(weights, device="auto", dtype="auto", quantize="none", offload="auto", lora="", give_back=True):
    """Open weights, what is open already if it is these: ("bundled",), (folder,), or (base, SUPIR file)."""
    place = str(find_device(None if device == "auto" else device))
    networks = {"device": place, "dtype": dtype, "quantize": quantize, "offload": offload}

    def opened():
        if len(weights) == 2:
            return SupirPipeline.from_single_file(*weights, **networks)
        return SupirPipeline.from_pretrained(None if weights == ("bundled",) else weights[0], **networks)

    pipeline = open_once((weights, stamp_of(weights), *networks.values()), opened)
    loaded = Loaded(pipeline, place, offload, lora, give_back)
    if give_back:
        pipeline.rest()
    return loaded


class SupirLoad(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        networks = NetworkOptions.fields()
        checkpoints = folder_paths.get_filename_list("checkpoints")
        kinds = [
            io.DynamicCombo.Option("bundled", []),
            io.DynamicCombo.Option("folder", [io.Combo.Input("folder", options=[*folders()])]),
            io.DynamicCombo.Option(
                "files", [io.Combo.Input("base", options=checkpoints), io.Combo.Input("supir", options=checkpoints)]
            ),
        ]
        return io.Schema(
            node_id="SupirLoad",
            display_name="Load SUPIR",
            category="SUPIR",
            description="The small bundled model, a folder of `supir convert`, or an SDXL and a SUPIR file.",
            inputs=[
                io.DynamicCombo.Input("weights", options=kinds, tooltip="where the weights are"),
                io.String.Input("device", default="auto", tooltip="cpu, cuda, cuda:1 ...; auto: a GPU if there is one"),
                *(widget(networks[name]) for name in ("dtype", "quantize", "offload")),
                io.Combo.Input("lora", options=[NONE, *folder_paths.get_filename_list("loras")], default=NONE),
                io.Float.Input("lora_strength", default=1.0, min=-10.0, max=10.0, step=0.01, advanced=True),
                io.Boolean.Input("give_back", default=True, tooltip="give the device's memory back after each run"),
            ],
            outputs=[SupirModel.Output("pipeline")],
        )

    @classmethod
    def paths(cls, weights, lora=NONE):
        """The weights as `load` takes them, and the LoRA's file."""
        kind = weights["weights"]
        if kind == "folder":
            known, name = folders(), weights["folder"]
            if name not in known:
                raise ValueError(f"folder is {name!r}; models/supir holds {', '.join(known) or 'none'}")
            found = (known[name],)
        elif kind == "files":
            names = (weights["base"], weights["supir"])
            found = tuple(folder_paths.get_full_path_or_raise("checkpoints", name) for name in names)
        else:
            found = (kind,)
        return found, lora if lora == NONE else folder_paths.get_full_path_or_raise("loras", lora)

    @classmethod
    def fingerprint_inputs(cls, weights, lora=NONE, **others):
        found, style = cls.paths(weights, lora)
        return stamp_of([*found, style])

    @classmethod
    def execute(cls, weights, device, dtype, quantize, offload, lora, lora_strength, give_back):
        found, style = cls.paths(weights, lora)
        style = "" if style == NONE else f"{style}:{lora_strength:g}"
        return io.NodeOutput(load(found, device, dtype, quantize, offload, style, give_back))


def preview(loaded, image, asked):
    """The clean previews of pictures."""
    with loaded.at_work() as model:
        options = model.options(**asked)
        return to_batch([model.preview(picture, options) for picture in from_batch(image)])


class SupirPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        fields = RestoreOptions.fields()
        return io.Schema(
            node_id="SupirPreview",
            display_name="SUPIR Clean Preview",
            category="SUPIR",
            description="The photo without its damage, within seconds: what captioners read and the result follows.",
            inputs=[
                SupirModel.Input("pipeline"),
                io.Image.Input("image"),
                *(widget(fields[name], advanced=name != "scale" or None) for name in ("scale", "min_size", "vae_tile")),
            ],
            outputs=[io.Image.Output("preview")],
        )

    @classmethod
    def execute(cls, pipeline, image, **values):
        return io.NodeOutput(preview(pipeline, image, overrides({"preset": "quality"}, values)))


class SupirCaption(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SupirCaption",
            display_name="SUPIR Caption",
            category="SUPIR",
            description="Describes the clean preview: by a LLaVA or the like in a folder, or an endpoint.",
            inputs=[
                SupirModel.Input("pipeline"),
                io.Image.Input("image"),
                *(widget(field) for name, field in CaptionOptions.fields().items() if name != "caption_cache"),
            ],
            outputs=[io.String.Output("caption")],
        )

    @classmethod
    def execute(cls, pipeline, image, **values):
        from supir.caption import clean_caption
        from supir.caption.spec import captioner_of, looks_at_pictures, readable

        options = CaptionOptions(**values | {"caption_question": values["caption_question"] or None})
        if not looks_at_pictures(options.captioner):
            raise ValueError(f"captioner is {options.captioner!r}; a graph needs a model's folder or an endpoint's URL")
        with pipeline.at_work() as model:
            preview = readable(model.preview(next(from_batch(image)), scale=1.0))
        stop_if_asked()
        with captioner_of(options, device=pipeline.device) as captioner:
            return io.NodeOutput(clean_caption(captioner(preview)))


class SupirRestore(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SupirRestore",
            display_name="SUPIR Restore",
            category="SUPIR",
            description="Restores pictures: takes damage out and puts in detail that fits.",
            search_aliases=["upscale", "enhance"],
            inputs=[
                SupirModel.Input("pipeline"),
                io.Image.Input("image"),
                io.Mask.Input("mask", optional=True, tooltip="white where blend mixes the clean preview in"),
                *option_inputs(),
            ],
            outputs=[
                io.Image.Output("image"),
                io.Image.Output("preview"),
                io.String.Output("record", tooltip="how it was made, as JSON"),
            ],
        )

    @classmethod
    def execute(cls, pipeline, image, preset, mask=None, **values):
        return io.NodeOutput(*restore(pipeline, image, mask, overrides(preset, values)))


def restore(loaded, image, mask, asked):
    """The restored pictures, their clean previews, and how they were made."""
    pictures, results, progress = [*from_batch(image)], [], Progress(len(image))
    with tempfile.TemporaryDirectory() as folder, loaded.at_work() as model:
        options = model.options(**asked, **loaded.overrides())
        for picture, path in zip(pictures, write_masks(mask, folder, len(pictures)), strict=True):
            masked = options.replace(blend_mask=path) if path else options
            results += model(picture, masked, on_step=progress.of(model, picture, masked))
    records = [{**each.record, "options": each.record["options"].replace(folder, "MASK")} for each in results]
    record = json.dumps(records[0] if len(records) == 1 else records, ensure_ascii=False, indent=1)
    return to_batch(each.picture for each in results), to_batch(each.preview for each in results), record


def in_folders(source, target):
    """Both inside of ComfyUI's folders: workflows come from strangers."""
    photo = path_within(folder_paths.get_input_directory(), source, "source")
    return photo, path_within(folder_paths.get_output_directory(), target, "target")


class SupirRestoreFile(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        fields = RestoreOptions.fields()
        return io.Schema(
            node_id="SupirRestoreFile",
            display_name="SUPIR Restore File",
            category="SUPIR",
            description="Keeps what a graph's IMAGE loses: 16 bits, profile, EXIF, transparency, resolution; any size.",
            is_output_node=True,
            inputs=[
                SupirModel.Input("pipeline"),
                io.String.Input("source", tooltip="a file in ComfyUI's input folder, named from there"),
                io.String.Input("target", tooltip="a file in ComfyUI's output folder; the suffix chooses the format"),
                io.Boolean.Input("overwrite", default=False, tooltip="replace a target that is there"),
                *option_inputs(),
                *(widget(fields[name], advanced=True) for name in ("salvage", "marking")),
            ],
            outputs=[
                io.String.Output("path"),
                io.String.Output("record"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, source, target, **others):
        photo, result = in_folders(source, target)
        return stamp_of([photo]) + str(result.exists())

    @classmethod
    def execute(cls, pipeline, source, target, overwrite, preset, **values):
        photo, result = in_folders(source, target)
        if result.exists() and not overwrite:
            raise ValueError(f"{result} is there; choose another target, or turn overwrite on")
        asked = overrides(preset, values) | pipeline.overrides()
        with pipeline.at_work() as model:
            options = model.options(**asked)
            if "scale" not in asked:
                options = options.replace(scale=scale_within(*read_size(photo), options.scale, result.suffix))
            on_step = Progress().of(model, photo, options)
            result.parent.mkdir(parents=True, exist_ok=True)
            record = model.restore_file(photo, result, options, on_step=on_step, on_work=lambda _: stop_if_asked())
        return io.NodeOutput(str(result), json.dumps(record, ensure_ascii=False, indent=1))


class SupirAudit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        fields = AuditOptions.fields()
        return io.Schema(
            node_id="SupirAudit",
            display_name="SUPIR Audit",
            category="SUPIR",
            description="What a result kept of its input, reconstructed, and invented; of results of any program.",
            inputs=[
                io.Image.Input("before"),
                io.Image.Input("after"),
                *(widget(field) for name, field in fields.items() if name != "on_doubt"),
            ],
            outputs=[io.Image.Output("overlay"), io.Mask.Output("map"), io.String.Output("report")],
        )

    @classmethod
    def execute(cls, before, after, **values):
        values = {name: None if value == UNSET else value for name, value in values.items()}
        with torch.inference_mode(False), torch.no_grad():
            found = audit(next(from_batch(before)), next(from_batch(after)), AuditOptions(**values))
            report = json.dumps(found.as_json(), ensure_ascii=False, indent=1)
            return io.NodeOutput(to_batch([found.overlay()]), (found.map().pixels + 1) / 2, report)


NODES = [SupirLoad, SupirPreview, SupirCaption, SupirRestore, SupirRestoreFile, SupirAudit]
