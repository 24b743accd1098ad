"""CLIP's tokenizer in Hugging Face layout, from the merges that open_clip ships (MIT).

python tools/bundled_model/clip_tokenizer.py --merges bpe_simple_vocab_16e6.txt.gz --out FOLDER
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

from transformers import CLIPTokenizer

NUM_MERGES = 49152 - 256 - 2
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def byte_letters() -> list[str]:
    """The 256 letters that stand for the byte values, in CLIP's order: printable ones first, then stand-ins."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [value for value in range(256) if value not in printable]
    return [chr(value) for value in printable] + [chr(256 + number) for number in range(len(rest))]


def vocabulary(merges: list[str]) -> dict[str, int]:
    """Token to id: letters, letters that end a word, merges, the two special tokens."""
    letters = byte_letters()
    words = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges]
    return {word: number for number, word in enumerate([*words, BEGIN, END])}


def write_tokenizers(merges_file: Path, out: Path) -> None:
    """Write ``tokenizer`` (padded with the end token) and ``tokenizer_2`` (padded with token 0, ``!``) to ``out``."""
    lines = gzip.decompress(merges_file.read_bytes()).decode().split("\n")[1 : NUM_MERGES + 1]
    for name, padding in (("tokenizer", END), ("tokenizer_2", "!")):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.json").write_text(json.dumps(vocabulary(lines), ensure_ascii=False), encoding="utf-8")
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8", newline="\n")
        special = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": padding}
        (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        CLIPTokenizer.from_pretrained(folder)


def main() -> None:
    """Write both tokenizer folders."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--merges", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write_tokenizers(options.merges, options.out)


if __name__ == "__main__":
    main()
