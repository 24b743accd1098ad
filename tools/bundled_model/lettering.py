"""Rendered lettering in many scripts, as tiles like those of the photographs: no set of photographed letters is free.

    python tools/bundled_model/lettering.py --fonts FOLDER --photos TILES --out TILES

``--fonts`` is searched for the fonts of Debian's packages fonts-noto-core, fonts-noto-cjk, fonts-dejavu-core,
fonts-liberation and fonts-nanum. Half of the tiles have a photograph behind the letters.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

TILE = 256
SIZES = (9, 56)
"""Smallest and largest size of letters, pixels; most are small."""
SAMPLES = {
    "Latin": "The quick brown fox jumps over the lazy dog 0123456789 Straße Café naïve ÅÄÖ Dvořák & Ñandú EXIT 50%",
    "Greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία ΑΒΓΔ οδός",
    "Cyrillic": "Съешь же ещё этих мягких французских булок да выпей чаю УЛИЦА",
    "Hangul": "다람쥐 헌 쳇바퀴에 타고파 서울특별시 안녕하세요 출입금지 맛있는 김치찌개 오늘의 뉴스",
    "Kana": "いろはにほへと ちりぬるを カタカナ 東京都 営業中 駐車場",
    "Han": "天地玄黃宇宙洪荒日月盈昃辰宿列張 小心地滑 北京市 歡迎光臨",
    "Arabic": "نص حكيم له سر قاطع وذو شأن عظيم",
    "Hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא חברה",
    "Devanagari": "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा",
    "Thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
}
FONTS = {
    "Latin": ("NotoSans-Regular", "NotoSans-Bold", "NotoSerif-Regular", "NotoSerif-Italic", "DejaVuSans", "DejaVuSerif",
              "DejaVuSansMono", "LiberationSans-Regular", "LiberationSerif-Regular", "LiberationSerif-Bold"),
    "Greek": ("NotoSans-Regular", "NotoSerif-Regular", "DejaVuSans"),
    "Cyrillic": ("NotoSans-Regular", "NotoSerif-Bold", "DejaVuSerif", "LiberationSans-Regular"),
    "Hangul": ("NanumGothic", "NanumGothicBold", "NanumMyeongjo", "NanumBarunGothic", "NotoSansCJK-Regular"),
    "Kana": ("NotoSansCJK-Regular", "NotoSerifCJK-Bold", "NotoSansCJK-Bold"),
    "Han": ("NotoSansCJK-Regular", "NotoSerifCJK-Bold", "NotoSansCJK-Bold"),
    "Arabic": ("NotoSansArabic-Regular", "NotoNaskhArabic-Regular", "NotoKufiArabic-Regular"),
    "Hebrew": ("NotoSansHebrew-Regular", "NotoSerifHebrew-Regular"),
    "Devanagari": ("NotoSansDevanagari-Regular", "NotoSerifDevanagari-Regular"),
    "Thai": ("NotoSansThai-Regular", "NotoSerifThai-Regular"),
}  # fmt: skip
SHARES = {"Latin": 0.36, "Hangul": 0.16, "Han": 0.1, "Kana": 0.08, "Cyrillic": 0.08}
"""Of the samples; the other scripts share the rest."""

Pixels = npt.NDArray[np.uint8]


def find_fonts(folder: Path) -> dict[str, list[Path]]:
    """The fonts of each script that the folder holds."""
    known = {path.stem: path for path in sorted(folder.rglob("*.[to]t[fc]"))}
    return {script: [known[name] for name in names if name in known] for script, names in FONTS.items()}


def lettered(rng: np.random.Generator, fonts: dict[str, list[Path]], behind: Pixels | None) -> Pixels:
    """A tile (256, 256, 3) of lines of one script."""
    scripts = [script for script in SAMPLES if fonts[script]]
    others = (1 - sum(SHARES.values())) / (len(SAMPLES) - len(SHARES))
    weights = np.array([SHARES.get(script, others) for script in scripts])
    script = str(rng.choice(scripts, p=weights / weights.sum()))
    paper = rng.integers(0, 256, 3)
    if rng.random() < 0.5:
        paper = np.array([1, 1, 1]) * int(rng.choice([235, 250, 255, 20, 5]))
    dark = paper.mean() < 128
    tile = behind if behind is not None else np.broadcast_to(paper.astype(np.uint8), (TILE, TILE, 3))
    picture = Image.fromarray(np.array(tile))
    draw, ink = ImageDraw.Draw(picture), rng.integers(150, 256, 3) if dark else rng.integers(0, 110, 3)
    top = int(rng.integers(-10, 12))
    while top < TILE:
        size = int(SIZES[0] * (SIZES[1] / SIZES[0]) ** (rng.random() ** 1.6))
        font = ImageFont.truetype(str(rng.choice(fonts[script])), size)  # type: ignore[arg-type]
        words = SAMPLES[script].split()
        start = int(rng.integers(len(words)))
        line = " ".join(words[(start + k) % len(words)] for k in range(int(rng.integers(2, 9))))
        draw.text((int(rng.integers(-20, 40)), top), line, fill=tuple(int(v) for v in ink), font=font)
        top += int(size * rng.uniform(1.15, 1.9)) + 1
    return np.asarray(picture)


def main() -> None:
    """Command line: writes ``train.npy`` and ``heldout.npy`` with their captions."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--fonts", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="tiles that may stand behind letters")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--number", type=int, default=900)
    arguments = parser.parse_args()
    fonts, rng = find_fonts(arguments.fonts), np.random.default_rng(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, number in (("train", arguments.number), ("heldout", 16)):
        photos = np.load(arguments.photos / f"{split}.npy", mmap_mode="r")
        tiles = [
            lettered(rng, fonts, photos[int(rng.integers(len(photos)))] if rng.random() < 0.5 else None)
            for _ in range(number)
        ]
        np.save(arguments.out / f"{split}.npy", np.stack(tiles))
        (arguments.out / f"{split}_captions.json").write_text(json.dumps(["printed words"] * number))


if __name__ == "__main__":
    main()
