"""A real LLaVA of tiny random weights: what it says, that it leaves, and what is refused."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, BlipForConditionalGeneration

from caption.tiny_captioners import WORDS, save_tiny_blip, save_tiny_llava
from supir.caption.model import ModelCaptioner
from supir.caption.spec import captioner_of
from supir.caption.words import QUESTION
from supir.cli.caption import captioning_of
from supir.data.build import build
from supir.data.options import BuildOptions, QualityRules
from supir.data.photos import Photos
from supir.errors import CaptionerError, OptionError
from supir.options import CaptionOptions


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8))


def test_it_describes_by_the_picture_and_the_same_picture_alike(llava: Path) -> None:
    with ModelCaptioner(llava, max_tokens=12) as captioner:
        said = [captioner(noise(seed)) for seed in (0, 1, 2, 0)]
    assert said[0] == said[3]
    assert len(set(said[:3])) > 1
    known = {word.strip() for word in WORDS}
    assert all(len(text.split()) == 12 and set(text.split()) <= known for text in said), said
    assert captioner.name == f"llava, 12 tokens, prompt {QUESTION!r}"


def test_another_question_is_heard_and_named(llava: Path) -> None:
    asked, other = (ModelCaptioner(llava, max_tokens=12, prompt=text) for text in (None, "Which colours?"))
    with asked, other:
        assert any(asked(noise(seed)) != other(noise(seed)) for seed in range(3))
    assert "Which colours?" in other.name
    assert asked.identity != other.identity


def test_words_that_are_drawn_are_the_same_for_the_same_picture(llava: Path) -> None:
    likeliest, drawn = (ModelCaptioner(llava, max_tokens=12, temperature=heat) for heat in (0.0, 2.0))
    with drawn:
        state = torch.random.get_rng_state()
        said = [drawn(noise(seed)) for seed in (0, 1, 0)]
        assert torch.equal(torch.random.get_rng_state(), state)
    with likeliest:
        assert likeliest(noise(0)) != said[0]
    assert said[0] == said[2] != said[1]
    assert drawn.name.endswith(", temperature 2")
    assert drawn.identity != likeliest.identity


def test_what_is_asked_is_an_option_and_the_reference_asks_as_the_paper(llava: Path, tmp_path: Path) -> None:
    def asked(preset: str | None = None, **more: object) -> ModelCaptioner:
        captioning = captioning_of({"captioner": str(llava), **more}, "cpu", preset)
        assert captioning is not None
        assert isinstance(captioning.captioner, ModelCaptioner)
        return captioning.captioner

    plain, own = asked(), asked(caption_question="Which colours?", caption_tokens=20, caption_temperature=0.5)
    assert (plain.prompt, plain.max_tokens, plain.temperature) == (None, 77, 0.0)
    assert (own.prompt, own.max_tokens, own.temperature) == ("Which colours?", 20, 0.5)
    paper = asked("reference", caption_tokens=100)
    question = "Describe this image and its style in a very detailed manner."
    assert (paper.prompt, paper.max_tokens, paper.temperature) == (question, 100, 0.2)
    with pytest.raises(OptionError, match="caption_tokens is for a captioner that looks at pictures"):
        captioner_of(CaptionOptions(captioner="beside", caption_tokens=20))
    words = tmp_path / "WORDS.TXT"
    words.write_text("A cat.\n")
    assert captioning_of({"captioner": str(words)}, "cpu", "reference") is not None, "it cannot be asked, and is not"
    endpoint: Any = captioner_of(
        CaptionOptions(
            captioner="http://localhost:1/v1", caption_model="a", caption_temperature=0.5, caption_question="Which?"
        )
    )
    assert (endpoint.question, endpoint.temperature, endpoint.max_tokens) == ("Which?", 0.5, 77)


def test_no_parameter_survives_its_end(llava: Path) -> None:
    gc.collect()
    before = {id(each) for each in gc.get_objects() if isinstance(each, torch.nn.Parameter)}
    captioner = ModelCaptioner(llava)
    with captioner:
        captioner(noise(0))
        objects = gc.get_objects()
        alive = [weakref.ref(x) for x in objects if isinstance(x, torch.nn.Parameter) and id(x) not in before]
        del objects
        assert len(alive) > 20
    assert [reference for reference in alive if reference() is not None] == []
    assert captioner(noise(0)), "it may be asked again"
    captioner.close()


def test_without_a_chat_template_nothing_is_asked(llava: Path, tmp_path: Path) -> None:
    other = shutil.copytree(llava, tmp_path / "plain", ignore=shutil.ignore_patterns("chat_template.jinja"))
    assert ModelCaptioner(other).name == "plain, 77 tokens, prompt None", "data sets built before are known by it"
    with ModelCaptioner(other, max_tokens=4, prompt="<image>\nWhat is it?") as captioner:
        assert len(captioner(noise(0)).split()) == 4


def test_a_model_that_is_asked_nothing(tmp_path: Path) -> None:
    folder = save_tiny_blip(tmp_path / "blip")
    with ModelCaptioner(folder, max_tokens=6) as captioner:
        assert captioner.name == "blip, 6 tokens, prompt None", "data sets built before are known by it"
        said = captioner(noise(0))
    processor = AutoProcessor.from_pretrained(folder)
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    tokens = model.generate(**processor(images=noise(0), return_tensors="pt"), max_new_tokens=6)
    assert said == " ".join(processor.batch_decode(tokens, skip_special_tokens=True)[0].split()) != ""


def test_its_identity_follows_its_files(llava: Path, tmp_path: Path) -> None:
    other = shutil.copytree(llava, tmp_path / "llava")
    assert ModelCaptioner(other).identity == ModelCaptioner(llava).identity
    index = other / "generation_config.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"length_penalty": 2.0}))
    changed = ModelCaptioner(other).identity
    assert changed != ModelCaptioner(llava).identity
    save_tiny_llava(other, seed=1)
    assert ModelCaptioner(other).identity != changed
    assert pickle.loads(pickle.dumps(ModelCaptioner(other))) == ModelCaptioner(other)


def test_pickles_and_strangers_code_are_not_loaded(llava: Path, tmp_path: Path) -> None:
    other = shutil.copytree(llava, tmp_path / "llava")
    (other / "model.safetensors").unlink()
    torch.save({}, other / "pytorch_model.bin")
    with pytest.raises(CaptionerError, match="cannot be loaded"):
        ModelCaptioner(other)(noise(0))
    (other / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config = json.loads((other / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForImageTextToText": "mine.M"}}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(CaptionerError, match="cannot be loaded"):
        ModelCaptioner(other)(noise(0))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("bits", "moved"), [(8, 0.1), (4, 0.8)])
def test_8_and_4_bits_a_weight(llava: Path, caplog: pytest.LogCaptureFixture, bits: int, moved: float) -> None:
    plain, small = ModelCaptioner(llava, max_tokens=12), ModelCaptioner(llava, max_tokens=12, bits=bits)
    with small:
        said = [small(noise(seed)) for seed in (0, 1, 0)]
        scores, size = scores_of(small)
    with plain:
        expected, whole = scores_of(plain)
    assert said[0] == said[2]
    assert all(len(text.split()) == 12 for text in said), said
    assert size < 0.6 * whole
    assert 0 < (scores - expected).std() / expected.std() < moved
    assert f"{bits} bits" in small.name
    assert small.identity != plain.identity
    assert [record for record in caplog.records if record.name.startswith("bitsandbytes")] == []


@torch.no_grad()
def scores_of(captioner: ModelCaptioner) -> tuple[Tensor, int]:
    """Of the first word about a picture the scores, and the bytes of the model's weights."""
    processor, model = captioner._open()
    inputs = captioner._inputs(processor, noise(0))
    return model(**inputs).logits[:, -1].float(), model.get_memory_footprint()


def test_bits_are_8_or_4_and_of_a_device_that_has_them(llava: Path) -> None:
    with pytest.raises(OptionError, match="8 or 4"):
        ModelCaptioner(llava, bits=3)
    with pytest.raises(OptionError, match="works on cuda and cpu, not on mps"):
        ModelCaptioner(llava, bits=4, device="mps")


def test_a_data_set_is_captioned_by_it(llava: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise(3).resize((128, 96)).save(tmp_path / "in" / "a.png")
    rules = QualityRules(min_side=64, max_flat_share=None, min_sharpness=None)
    with ModelCaptioner(llava, max_tokens=5) as captioner:
        build([tmp_path / "in"], tmp_path / "out", options=BuildOptions(rules=rules), captioner=captioner)
        sample = Photos(tmp_path / "out").sample(0)
        with Image.open(tmp_path / "in" / "a.png") as picture:
            assert sample.caption == captioner(picture.convert("RGB"))
    assert json.loads((tmp_path / "out" / "build.json").read_text())["captioner"] == captioner.name
