"""A tiny SupirPipeline of the real classes with random weights, for tests."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from supir.models.adaptor import SupirAdaptor
from supir.models.autoencoder import SupirAutoencoder
from supir.models.unet import SupirUNet
from supir.pipeline import SupirPipeline

TRUNK = {
    "block_out_channels": (32, 64, 64),
    "transformer_layers_per_block": (1, 1, 1),
    "attention_head_dim": (2, 4, 4),
    "cross_attention_dim": 48,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24 + 6 * 8,
}


def tiny_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's byte-level tokenizer without merges: one token a character, 0 is the exclamation mark."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[], pad_token=pad_token, model_max_length=77
    )


def tiny_tower(kind: type, width: int, tokenizer: CLIPTokenizer, **extra: object) -> torch.nn.Module:
    """One text tower of two layers."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **extra,
    )
    return kind(config).eval()


def randomised(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every parameter drawn anew, the zero-initialised ones too, at a scale that keeps activations near one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
        parameter.data = noise / fan_in**0.5 + (1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0)
    return module.eval()


@functools.cache
def tiny_components() -> dict[str, object]:
    """The components, made once; do not change them in place."""
    tokenizer, tokenizer_2 = tiny_tokenizer(), tiny_tokenizer(pad_token="!")
    return {
        "autoencoder": randomised(
            SupirAutoencoder(block_out_channels=(32, 32, 32, 32), layers_per_block=1, sample_size=64), 1
        ),
        "unet": randomised(SupirUNet(**TRUNK, connector_hidden_channels=16, sample_size=16), 2),
        "adaptor": randomised(SupirAdaptor(**TRUNK), 3),
        "text_encoder": randomised(tiny_tower(CLIPTextModel, 20, tokenizer), 4),
        "text_encoder_2": randomised(
            tiny_tower(CLIPTextModelWithProjection, 28, tokenizer_2, projection_dim=24, hidden_act="gelu"), 5
        ),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer_2,
    }


def tiny_pipeline(**overrides: object) -> SupirPipeline:
    """A pipeline over the shared tiny components."""
    pipeline = SupirPipeline(**(tiny_components() | overrides))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_model(folder: Path, **overrides: object) -> Path:
    """A model folder as users have them."""
    tiny_pipeline(**overrides).save_pretrained(folder)
    return folder
