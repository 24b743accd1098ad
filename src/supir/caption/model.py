"""A captioner that is a model in a folder: LLaVA, or any image-to-text model of transformers."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supir.caption.words import QUESTION, ROOM_TO_THINK, TOP_P, Closable, caption_in, has_thoughts, spoken
from supir.errors import CaptionerError, CaptionError, MissingExtraError, OptionError

if TYPE_CHECKING:
    from PIL import Image

_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_LOADED: dict[tuple[str, int | None, str | None], tuple[Any, Any]] = {}
"""The one model that this process holds; not in the captioner, which is sent to workers."""


@dataclass(frozen=True)
class ModelCaptioner(Closable):
    """An image-to-text model of transformers (LLaVA, Qwen-VL, BLIP, GIT ...) in a local folder; nothing is downloaded.

    Weights are safetensors alone, and no code in the folder is run. The model is loaded when the first caption is asked
    for, once a process. It takes the likeliest words, or draws them from one seed, so that the same picture gets the
    same words, and is given back by `close` or at the end of a ``with``.

    Raises:
        OptionError: the folder is not there or is not a model folder; ``bits`` on another device than a CUDA GPU or the
            processor, or neither 8 nor 4.
        MissingExtraError: ``bits`` without bitsandbytes.
    """

    folder: Path
    max_tokens: int = 77
    """Tokens of a caption at most."""
    prompt: str | None = None
    """What is asked. None: models with a chat template are asked `QUESTION`, others are asked nothing."""
    temperature: float = 0.0
    """0 takes the likeliest words; more draws them, the same for the same picture."""
    bits: int | None = None
    """8 or 4 bits a weight, through bitsandbytes, on a CUDA GPU or the processor; None: as they are stored."""
    device: str | None = None
    """Where it runs, as in ``cuda:1``; None is the CPU."""

    def __post_init__(self) -> None:
        if not (Path(self.folder) / "config.json").is_file():
            raise OptionError(
                f"captions {self.folder}: no model folder (config.json is missing); give 'beside' for the caption"
                " files beside the pictures, or the folder of an image-to-text model of transformers"
            )
        if self.bits is not None:
            _check_bits(self.bits, self.device)

    @property
    def name(self) -> str:
        """The folder's name with what is asked of it."""
        bits = f", {self.bits} bits" if self.bits else ""
        drawn = f", temperature {self.temperature:g}" if self.temperature else ""
        return f"{Path(self.folder).resolve().name}, {self.max_tokens} tokens, prompt {self._question!r}{drawn}{bits}"

    @property
    def identity(self) -> str:
        """What decides its words: its name and its files, large ones by size and time of change, others by content."""
        digest = hashlib.sha256(self.name.encode())
        for path in sorted(Path(self.folder).iterdir()):
            if path.is_file():
                stat = path.stat()
                large = path.suffix == ".safetensors" or stat.st_size > 10_000_000
                content = str(stat.st_mtime_ns) if large else hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(json.dumps([path.name, stat.st_size, content]).encode())
        return digest.hexdigest()

    def __call__(self, image: Image.Image) -> str:
        """A caption in one line.

        Args:
            image: RGB, upright, sRGB, of any size: the model's processor brings it to its own.

        Raises:
            CaptionerError: the model cannot be loaded.
            CaptionError: it cannot make a caption of this picture, most often for lack of memory, or will not.
        """
        processor, model = self._open()
        try:
            found = self._inputs(processor, image)
            inputs = {name: _moved(values, model) for name, values in found.items()}
            text = self._answer(processor, model, inputs, self.max_tokens)
            if has_thoughts(text) and not spoken(text).strip():
                text = self._answer(processor, model, inputs, ROOM_TO_THINK)
        except (MemoryError, RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
            raise CaptionError(f"captions {self.folder}: no caption could be made: {_reason(error)}") from error
        caption = caption_in(text, f"captions {self.folder}")
        if not caption and has_thoughts(text):
            message = f"captions {self.folder}: the model has thought for {ROOM_TO_THINK} tokens and come to no caption"
            raise CaptionError(f"{message}; ask another model")
        return caption

    def _answer(self, processor: Any, model: Any, inputs: dict[str, Any], max_tokens: int) -> str:
        """What the model generates; signs of thinking are left in it, other special tokens are not."""
        import torch

        with torch.random.fork_rng(devices=[]):  # not every device's state can be kept, and nothing of ours draws there
            torch.manual_seed(0)
            drawn = {"do_sample": True, "temperature": self.temperature, "top_p": TOP_P} if self.temperature else {}
            tokens = model.generate(**inputs, max_new_tokens=max_tokens, **drawn or {"do_sample": False})
        if self._question is not None and "input_ids" in inputs and not model.config.is_encoder_decoder:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]  # the question is repeated before the answer
        whole: str = processor.batch_decode(tokens, skip_special_tokens=False)[0]
        if not has_thoughts(whole):
            return str(processor.batch_decode(tokens, skip_special_tokens=True)[0])
        # Where the signs of thinking are special tokens, they would go and the thoughts stay.
        specials = getattr(getattr(processor, "tokenizer", processor), "all_special_tokens", [])
        for token in specials:
            whole = whole if has_thoughts(token) else whole.replace(token, " ")
        return whole

    def close(self) -> None:
        """Give the memory of the model back; another call loads it again."""
        if _LOADED.pop(self._key, None) is not None:
            from supir.tensors.memory import give_back

            give_back()

    @property
    def _question(self) -> str | None:
        return QUESTION if self.prompt is None and self._chats else self.prompt

    @property
    def _chats(self) -> bool:
        """Whether questions are put in the model's own form; said by the files, so that it is known before loading."""
        folder = Path(self.folder)
        if any((folder / name).is_file() for name in _TEMPLATES):
            return True
        configs = (folder / "processor_config.json", folder / "tokenizer_config.json")
        texts = (path.read_text(encoding="utf-8", errors="replace") for path in configs if path.is_file())
        return any('"chat_template"' in text for text in texts)

    def _inputs(self, processor: Any, image: Image.Image) -> Any:
        if not self._chats:
            asked = {} if self.prompt is None else {"text": self.prompt}
            return processor(images=image, return_tensors="pt", **asked)
        content = [{"type": "image", "image": image}, {"type": "text", "text": self._question}]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )

    @property
    def _key(self) -> tuple[str, int | None, str | None]:
        return str(self.folder), self.bits, self.device

    @property
    def _place(self) -> str:
        """Where it runs: found where it is opened, which may be another machine than where it was made."""
        from supir.weights.device import find_device

        return str(find_device(self.device))

    def _open(self) -> tuple[Any, Any]:
        if self._key not in _LOADED:
            from supir.tensors.memory import give_back

            _LOADED.clear()
            give_back()
            _LOADED[self._key] = self._load()
        return _LOADED[self._key]

    def _load(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        extra: dict[str, Any] = {}
        if self.bits is not None:
            logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # else a line for every product it rounds
            where = self._place
            exact = "float32" if where == "cpu" else "float16"  # what the processor multiplies fast
            kind = {"bnb_4bit_compute_dtype": exact} if self.bits == 4 else {}
            extra["quantization_config"] = BitsAndBytesConfig(**{f"load_in_{self.bits}bit": True}, **kind)
            extra |= {"device_map": {"": where}, "dtype": exact}
        try:
            processor = AutoProcessor.from_pretrained(str(self.folder), **safe)
            model = AutoModelForImageTextToText.from_pretrained(str(self.folder), use_safetensors=True, **safe, **extra)
            if self.bits is None:
                model = model.to(self._place)
        except (
            OSError, MemoryError, ValueError, KeyError, ImportError, RuntimeError, TypeError, AttributeError,
        ) as error:  # fmt: skip
            message = f"captions {self.folder}: cannot be loaded as an image-to-text model: {_reason(error)}"
            raise CaptionerError(message) from error
        for layer in model.modules():
            # Where the processor multiplies bfloat16, bitsandbytes packs anew, and fails on small layers.
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
        return processor, model.eval()


def _moved(values: Any, model: Any) -> Any:
    """Where the model is, and numbers in its precision; not all processors answer with something that can do it."""
    if not hasattr(values, "is_floating_point"):
        return values
    return values.to(model.device, model.dtype if values.is_floating_point() else None)


def _reason(error: Exception) -> str:
    from supir.tensors.memory import ran_out

    if not ran_out(error):
        return str(error)
    return f"memory ran out ({error}); hold the model in fewer bits (caption_bits), take a smaller one, or free memory"


def _check_bits(bits: int, device: str | None) -> None:
    if bits not in (8, 4):
        raise OptionError(f"caption_bits is {bits}; it must be 8 or 4")
    if (kind := (device or "cpu").split(":")[0]) not in ("cuda", "cpu"):
        message = f"caption_bits is {bits}: works on cuda and cpu, not on {kind}; leave it out, or ask an endpoint"
        raise OptionError(message)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", "caption-bits", "a caption model of 8 or 4 bits")
