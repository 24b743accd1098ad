"""Workflows of the retired wrapper: nodes with its nodes' inputs, which stand for these where the wrapper is missing.

Written from workflows that people have published; they are out of the menus.
"""

from dataclasses import replace

import folder_paths
from comfy_api.v0_0_2 import ComfyAPI, io

from supir.options.published import published_options

from .nodes import load, preview, restore
from .work import SupirModel

Photo = io.Custom("SUPIR_PHOTO")
"""In place of latents and conditioning: (the photo, options that the nodes on its way were given)."""
AS_IT_IS = {"scale": 1.0, "min_size": 64, "color_fix": "none"}
"""There a picture is worked on at the size that it comes in, and colours are another node's matter."""


def sampled(loaded, image, options):
    """A base distilled to few steps is asked at the timesteps that it was taught at."""
    preset = "lightning" if loaded.pipeline.distilled else "quality"
    return restore(loaded, image, None, {"preset": preset} | AS_IT_IS | options)[:1]


def base_of(link, prompt):
    """The SDXL file, and LoRAs, of the core nodes that a link to a MODEL comes from; nothing of these is loaded."""
    loras = []
    while isinstance(link, list):
        node = prompt[str(link[0])]
        inputs = node["inputs"]
        if "ckpt_name" in inputs:
            return inputs["ckpt_name"], "|".join(reversed(loras))
        if "lora_name" in inputs:
            path = folder_paths.get_full_path_or_raise("loras", inputs["lora_name"])
            loras.append(f"{path}:{inputs.get('strength_model', 1.0):g}")
        link = inputs.get("model")
        if not isinstance(link, list):
            raise ValueError(f"the base comes from {node['class_type']}, not from a checkpoint's file; use Load SUPIR")
    raise ValueError("model is not linked; link it to Load Checkpoint, whose file is the base, or use Load SUPIR")


def opened(base, supir_model, fp8_unet, diffusion_dtype, lora="", give_back=True):
    """The two files, loaded as the wrapper's loaders are told."""
    paths = tuple(folder_paths.get_full_path_or_raise("checkpoints", name) for name in (base, supir_model))
    asked = published_options({"diffusion_dtype": diffusion_dtype})
    return load(paths, **asked, quantize="float8" if fp8_unet else "none", lora=lora, give_back=give_back)


def widgets(**defaults):
    """Widgets by name, of the kind that their defaults have; any text, any number."""
    kinds = {
        bool: (io.Boolean, {}),
        int: (io.Int, {"min": 0, "max": 2**63 - 1}),
        float: (io.Float, {"min": -1.0, "max": 1000.0, "step": 0.001, "round": False}),
        str: (io.String, {}),
    }
    made = [(name, value, *kinds[type(value)]) for name, value in defaults.items()]
    return [kind.Input(name, default=value, **more) for name, value, kind, more in made]


class OldNode(io.ComfyNode):
    """What the nodes below share."""

    OLD, INPUTS, OUTPUTS, HIDDEN = "", [], [], []

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id=cls.__name__,
            display_name=f"{cls.OLD} (retired)",
            category="SUPIR/retired",
            description=f"{cls.__doc__} Stands for a node of the retired wrapper, so that its workflows run.",
            is_deprecated=True,
            inputs=[*cls.INPUTS],
            outputs=[kind.Output(name) for name, kind in cls.OUTPUTS],
            hidden=[*cls.HIDDEN],
        )

    @classmethod
    def execute(cls, **given):
        return io.NodeOutput(*cls.run(**given))


class SupirOldLoader(OldNode):
    """The base is the file of the checkpoint's node that `model` comes from."""

    OLD, HIDDEN = "SUPIR_model_loader_v2", [io.Hidden.prompt]
    INPUTS = [
        io.Model.Input("model", lazy=True, raw_link=True),
        *widgets(supir_model="", fp8_unet=False, diffusion_dtype="auto"),
    ]
    OUTPUTS = [("SUPIR_model", SupirModel), ("SUPIR_VAE", SupirModel)]

    @classmethod
    def check_lazy_status(cls, **given):
        return []

    @classmethod
    def run(cls, model, **given):
        base, lora = base_of(model, cls.hidden.prompt)
        return (opened(base, **given, lora=lora),) * 2


class SupirOldLoaderOfFiles(OldNode):
    """Both files by their names."""

    OLD = "SUPIR_model_loader"
    INPUTS = widgets(supir_model="", sdxl_model="", fp8_unet=False, diffusion_dtype="auto")
    OUTPUTS = SupirOldLoader.OUTPUTS

    @classmethod
    def run(cls, sdxl_model, **given):
        return (opened(sdxl_model, **given),) * 2


class SupirOldFirstStage(OldNode):
    """The clean preview."""

    OLD = "SUPIR_first_stage"
    INPUTS = [
        SupirModel.Input("SUPIR_VAE"),
        io.Image.Input("image"),
        *widgets(use_tiled_vae=True, encoder_tile_size=512, decoder_tile_size=512, encoder_dtype="auto"),
    ]
    OUTPUTS = [("SUPIR_VAE", SupirModel), ("denoised_image", io.Image), ("denoised_latents", Photo)]

    @classmethod
    def run(cls, SUPIR_VAE, image, **given):
        options = published_options(given)
        return SUPIR_VAE, preview(SUPIR_VAE, image, AS_IT_IS | options), (image, options)


class SupirOldEncode(OldNode):
    """A photo for the sampler, where no first stage has made one."""

    OLD = "SUPIR_encode"
    INPUTS = [
        SupirModel.Input("SUPIR_VAE"),
        io.Image.Input("image"),
        *widgets(use_tiled_vae=True, encoder_tile_size=512, encoder_dtype="auto"),
    ]
    OUTPUTS = [("latent", Photo)]

    @classmethod
    def run(cls, SUPIR_VAE, image, **given):
        return ((image, published_options(given)),)


class SupirOldConditioner(OldNode):
    """The words."""

    OLD = "SUPIR_conditioner"
    INPUTS = [
        SupirModel.Input("SUPIR_model"),
        Photo.Input("latents"),
        *widgets(positive_prompt="high quality, detailed", negative_prompt="bad quality, blurry, messy"),
        io.String.Input("captions", optional=True, force_input=True, tooltip="link it again: it is not taken over"),
    ]
    OUTPUTS = [("positive", Photo), ("negative", Photo)]

    @classmethod
    def run(cls, SUPIR_model, latents, **given):
        image, options = latents
        return ((image, options | published_options(given)),) * 2


class SupirOldSample(OldNode):
    """The restoration. The photo and the words come with `positive`; the encoded preview is made anew."""

    OLD = "SUPIR_sample"
    INPUTS = [
        SupirModel.Input("SUPIR_model"), Photo.Input("latents"), Photo.Input("positive"), Photo.Input("negative"),
        *widgets(
            seed=0, steps=45, cfg_scale_start=4.0, cfg_scale_end=4.0, EDM_s_churn=5, s_noise=1.003, DPMPP_eta=1.0,
            control_scale_start=1.0, control_scale_end=1.0, restore_cfg=-1.0, keep_model_loaded=False,
            sampler="RestoreEDMSampler", sampler_tile_size=1024, sampler_tile_stride=512,
        ),
    ]  # fmt: skip
    OUTPUTS = [("latent", io.Image)]

    @classmethod
    def run(cls, SUPIR_model, latents, positive, negative, keep_model_loaded, **given):
        image, options = positive
        loaded = replace(SUPIR_model, give_back=not keep_model_loaded)
        return sampled(loaded, image, options | published_options(given))


class SupirOldDecode(OldNode):
    """Hands on what the sampler has decoded already."""

    OLD = "SUPIR_decode"
    INPUTS = [
        SupirModel.Input("SUPIR_VAE"),
        io.Image.Input("latents"),
        *widgets(use_tiled_vae=True, decoder_tile_size=512),
    ]
    OUTPUTS = [("image", io.Image)]

    @classmethod
    def run(cls, SUPIR_VAE, latents, **given):
        return (latents,)


class SupirOldUpscale(OldNode):
    """All in one node, as the wrapper's first was."""

    OLD = "SUPIR_Upscale"
    INPUTS = [
        io.Image.Input("image"),
        *widgets(
            supir_model="", sdxl_model="", seed=0, resize_method="lanczos", scale_by=1.0, steps=45,
            restoration_scale=-1.0, cfg_scale=4.0, a_prompt="high quality, detailed",
            n_prompt="bad quality, blurry, messy", s_churn=5, s_noise=1.003, control_scale=1.0, cfg_scale_start=4.0,
            control_scale_start=0.0, color_fix_type="Wavelet", keep_model_loaded=True, use_tiled_vae=True,
            encoder_tile_size_pixels=512, decoder_tile_size_latent=64, diffusion_dtype="auto", encoder_dtype="auto",
            batch_size=1, use_tiled_sampling=False, sampler_tile_size=1024, sampler_tile_stride=512, fp8_unet=False,
            fp8_vae=False, sampler="RestoreEDMSampler",
        ),
    ]  # fmt: skip
    OUTPUTS = [("upscaled_image", io.Image)]

    @classmethod
    def run(cls, image, supir_model, sdxl_model, fp8_unet, diffusion_dtype, keep_model_loaded, **given):
        loaded = opened(sdxl_model, supir_model, fp8_unet, diffusion_dtype, give_back=not keep_model_loaded)
        return sampled(loaded, image, published_options(given))


OLD_NODES = OldNode.__subclasses__()


def replacements():
    """What stands for which, for ComfyUI: inputs and outputs have the same names and places.

    `captions` is left out: a server that replaces in a stored prompt fails where an old node has no such input.
    """
    for node in OLD_NODES:
        needed = [each for each in node.INPUTS if not each.optional]
        stored = [each.id for each in needed if hasattr(each, "default")]
        if "seed" in stored:  # a stored graph has a value more behind it
            stored.insert(stored.index("seed") + 1, "control_after_generate")
        for old in (node.OLD, *([f"{node.OLD}_clip"] if node is SupirOldLoader else [])):
            yield io.NodeReplace(
                new_node_id=node.__name__,
                old_node_id=old,
                old_widget_ids=stored,
                input_mapping=[{"new_id": each.id, "old_id": each.id} for each in needed],
                output_mapping=[{"new_idx": index, "old_idx": index} for index in range(len(node.OUTPUTS))],
            )


async def register_replacements():
    """Tell ComfyUI."""
    api = ComfyAPI()
    for each in replacements():
        await api.node_replacement.register(each)
