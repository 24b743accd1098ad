"""A model folder as people have it who begin at the paper's size: SDXL, in small widths."""

from __future__ import annotations

from pathlib import Path

from launched import ran
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from supir.models.adaptor import SupirAdaptor
from supir.models.autoencoder import SupirAutoencoder
from supir.models.unet import SupirUNet
from supir.weights.layout import ADAPTOR, CONNECTORS, DEGRADED_ENCODER
from tiny import randomised
from weights.originals import numbering_of, original_weights


def converted_sdxl(folder: Path) -> Path:
    """What `supir convert --lenient` makes of a file that is laid out as SDXL's: heads of 64, depths 1, 2, 10."""
    trunk = {
        "block_out_channels": (64, 128, 128),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (1, 2, 2),
        "cross_attention_dim": 128,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 64,
    }
    up = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    tower = {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 128, "num_hidden_layers": 2}
    models = {
        "autoencoder": SupirAutoencoder(block_out_channels=(32, 32, 32, 32), layers_per_block=1, sample_size=64),
        "unet": SupirUNet(**trunk, up_block_types=up, sample_size=16),
        "adaptor": SupirAdaptor(**trunk),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**tower)),
        "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**tower, projection_dim=64, hidden_act="gelu")),
    }
    for number, model in enumerate(models.values()):
        randomised(model, number)
    own = (ADAPTOR, CONNECTORS, DEGRADED_ENCODER)
    weights = original_weights(models, numbering_of(models))
    sdxl = {key: tensor.contiguous() for key, tensor in weights.items() if not key.startswith(own)}
    save_file(sdxl, folder / "sdxl.safetensors")
    ran("-m", "supir.cli", "convert", folder / "sdxl.safetensors", "-o", folder / "base", "--lenient")
    return folder / "base"
