"""What kind of file it is, told by its strongest frame first; a stranger is called by its name.

The first bytes of a safetensors file are a number, so they may be anything: also those with which a pickle, an archive
or a picture begins. Its frame is asked for first for that reason, a header that ends within the file and begins with a
brace, which no other kind has; then those of torch's files; and only then what else people have under such names.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from supir.errors import WeightsError

Format = Literal["safetensors", "zip", "pickle"]

MAX_HEADER_BYTES = 100_000_000
"""What the safetensors format allows its header; a larger claim is damage or an attack."""

NUM_BYTES_READ = 4096
_PICKLE = 0x80
_OPERATIONS = {opcode.code.encode("latin-1") for opcode in pickletools.opcodes}


@dataclass(frozen=True, kw_only=True)
class Stranger:
    """A kind of file that holds no weights we read: what to call it, how it begins, what to do about it."""

    name: str
    pattern: str
    advice: str = "Give the weights file itself: .safetensors, or a .ckpt of tensors alone."

    def begins(self, beginning: bytes) -> bool:
        """Whether a file with this beginning is one."""
        return re.match(self.pattern.encode("latin-1"), beginning, re.DOTALL | re.IGNORECASE) is not None


_UNPACK = "Unpack it and give the weights file in it."
_AGAIN = "Fetch the file again, in a browser or by a tool that is logged in where that is asked for."
_TEXT = r"(?:\xef\xbb\xbf)?\s*"
STRANGERS = (
    Stranger(
        name="a git-LFS pointer, which stands for the file and does not hold it",
        pattern=r"version https://(?:git-lfs|hawser)\.github\.com/spec/",
        advice="Run 'git lfs pull' in its folder, or fetch the file from its page.",
    ),
    Stranger(
        name="a git-annex or Xet pointer, which stands for the file and does not hold it",
        pattern=r"(?:[./]*\.git/annex/objects/|/annex/objects/|# xet version)",
        advice="Fetch the file that it stands for.",
    ),
    Stranger(
        name="a web page", pattern=_TEXT + r"(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body)", advice=_AGAIN
    ),
    Stranger(name="an XML text, such as a server's error message", pattern=_TEXT + r"<\?xml", advice=_AGAIN),
    Stranger(
        name="a GGUF file: weights quantised for other programs",
        pattern="GGUF",
        advice="Give the original in .safetensors, with 16 or 32 bits a weight.",
    ),
    Stranger(
        name="a GGML file: weights quantised for other programs",
        pattern="(?:lmgg|fmgg|tjgg|algg|ggml|ggmf|ggjt|ggla)",
        advice="Give the original in .safetensors, with 16 or 32 bits a weight.",
    ),
    Stranger(name="a PNG picture", pattern=r"\x89PNG"),
    Stranger(name="a JPEG picture", pattern=r"\xff\xd8\xff"),
    Stranger(name="a GIF picture", pattern=r"GIF8"),
    Stranger(name="a WebP picture", pattern=r"RIFF....WEBP"),
    Stranger(name="a TIFF picture", pattern=r"(?:II\*\x00|MM\x00\*|II\+\x00|MM\x00\+)"),
    Stranger(name="a picture or film", pattern=r"....ftyp"),
    Stranger(name="a PDF document", pattern="%PDF-"),
    Stranger(name="a gzip archive", pattern=r"\x1f\x8b", advice=_UNPACK),
    Stranger(name="a bzip2 archive", pattern=r"BZh[1-9]1AY", advice=_UNPACK),
    Stranger(name="an xz archive", pattern=r"\xfd7zXZ\x00", advice=_UNPACK),
    Stranger(name="a Zstandard archive", pattern=r"\x28\xb5\x2f\xfd", advice=_UNPACK),
    Stranger(name="a 7z archive", pattern=r"7z\xbc\xaf\x27\x1c", advice=_UNPACK),
    Stranger(name="a RAR archive", pattern=r"Rar!\x1a\x07", advice=_UNPACK),
    Stranger(name="a tar archive", pattern=r".{257}ustar", advice=_UNPACK),
    Stranger(name="an empty or cut-off zip archive", pattern=r"PK(?:\x05\x06|\x07\x08|\x01\x02)", advice=_AGAIN),
    Stranger(name="a NumPy array", pattern=r"\x93NUMPY"),
    Stranger(name="an HDF5 file, such as Keras writes", pattern=r"\x89HDF\r\n\x1a\n"),
    Stranger(name="a TensorFlow Lite model", pattern=r"....TFL[23]"),
    Stranger(name="an ONNX model", pattern=r"\x08[\x01-\x10]\x12.(?:pytorch|onnx|tf2onnx|skl2onnx|keras2onnx)"),
    Stranger(name="a TensorRT engine", pattern="ftrt"),
    Stranger(name="a database", pattern=r"SQLite format 3\x00"),
    Stranger(name="a program", pattern=r"(?:\x7fELF|MZ.{6}|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe|#!)"),
    Stranger(
        name="a JSON text, such as a configuration or a server's message",
        pattern=_TEXT + r"[\[{]\s*(?:\"|\{|\[|[\]}0-9])",
    ),
    Stranger(
        name="an unfinished download: it begins with nothing but zeros",
        pattern=r"\x00{64}",
        advice="Let the download end, or fetch the file again.",
    ),
)
"""In the order they are asked; only of files that have no frame of ours."""


def format_of(path: Path) -> Format:
    """The format of a weights file, by its frame; its name says nothing.

    Raises:
        WeightsError: the file cannot be read, is empty or cut off, or is of another kind, which the message names.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            beginning = file.read(NUM_BYTES_READ)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); give a .safetensors or .ckpt file") from error
    if not beginning:
        raise WeightsError(f"{path}: an empty file. Fetch it again.")
    if len(beginning) > 8 and beginning[8:9] == b"{":
        claimed = int.from_bytes(beginning[:8], "little")
        if claimed <= min(size - 8, MAX_HEADER_BYTES):
            return "safetensors"
        if claimed <= MAX_HEADER_BYTES:
            raise WeightsError(
                f"{path}: a truncated safetensors file: its header alone has {claimed} bytes, the file {size}. Fetch it"
                " again."
            )
    if beginning.startswith(b"PK\x03\x04"):
        return "zip"
    if _is_pickle(beginning):
        return "pickle"
    raise WeightsError(f"{path}: {_stranger(path, beginning, size)}")


def _is_pickle(beginning: bytes) -> bool:
    """A pickle says its protocol, and then an operation; torch's are of the second protocol."""
    protocol, operation = beginning[1:2], beginning[2:3]
    return beginning[0] == _PICKLE and b"\x02" <= protocol <= b"\x05" and operation in _OPERATIONS


def _stranger(path: Path, beginning: bytes, size: int) -> str:
    for stranger in STRANGERS:
        if stranger.begins(beginning):
            return f"{stranger.name}, no weights file. {stranger.advice}"
    shown = beginning[:64].decode("ascii", "replace").split("\n")[0].strip()
    if shown.isascii() and shown.isprintable():
        return f"a text that begins {shown[:40]!r}, no weights file. {_AGAIN}"
    claimed = int.from_bytes(beginning[:8], "little")
    if path.suffix == ".safetensors" and claimed > MAX_HEADER_BYTES:
        return (
            f"not a whole safetensors file: it is {size} bytes long and its first 8 bytes claim a header of {claimed}"
            f" bytes ({MAX_HEADER_BYTES} are allowed). Fetch it again, or give another file."
        )
    return (
        f"neither a whole safetensors file nor one of torch: of no kind known here (first bytes"
        f" {beginning[:8].hex(' ')}). Fetch it again, or give another file."
    )
