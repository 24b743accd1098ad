"""What kind of file it is, told by its strongest frame first; a stranger is called by its name.

The first bytes of a safetensors file are a number, so they may be anything: also those with which a pickle, an archive
or a picture begins. Its frame is asked for first for that reason, a header that ends within the file and begins with a
brace, which no other kind has; then those of torch's files; and only then what else people have under such names.
"""

from __future__ import annotations

import pickletools
import re
from pathlib import Path
from typing import Literal

from supir.errors import WeightsError

Format = Literal["safetensors", "zip", "pickle", "gguf"]

MAX_HEADER_BYTES = 100_000_000
"""What the safetensors format allows its header; a larger claim is damage or an attack."""

NUM_BYTES_READ = 4096
_PICKLE = 0x80
_OPERATIONS = {opcode.code.encode("latin-1") for opcode in pickletools.opcodes}


_GIVE = "Give the weights file itself: .safetensors, or a .ckpt of tensors alone."
_UNPACK = "Unpack it and give the weights file in it."
_AGAIN = "Fetch the file again, in a browser or by a tool that is logged in where that is asked for."
_ORIGINAL = "Give the original in .safetensors, with 16 or 32 bits a weight."
_TEXT = r"(?:\xef\xbb\xbf)?\s*"
STRANGERS = (
    (
        "a git-LFS pointer, which stands for the file and does not hold it",
        r"version https://(?:git-lfs|hawser)\.github\.com/spec/",
        "Run 'git lfs pull' in its folder, or fetch the file from its page.",
    ),
    (
        "a git-annex or Xet pointer, which stands for the file and does not hold it",
        r"(?:[./]*\.git/annex/objects/|/annex/objects/|# xet version)",
        "Fetch the file that it stands for.",
    ),
    ("a web page", _TEXT + r"(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body)", _AGAIN),
    ("an XML text, such as a server's error message", _TEXT + r"<\?xml", _AGAIN),
    ("a GGML file: weights quantised for other programs", "(?:lmgg|fmgg|tjgg|algg|ggml|ggmf|ggjt|ggla)", _ORIGINAL),
    ("a PNG picture", r"\x89PNG", _GIVE),
    ("a JPEG picture", r"\xff\xd8\xff", _GIVE),
    ("a GIF picture", r"GIF8", _GIVE),
    ("a WebP picture", r"RIFF....WEBP", _GIVE),
    ("a TIFF picture", r"(?:II\*\x00|MM\x00\*|II\+\x00|MM\x00\+)", _GIVE),
    ("a picture or film", r"....ftyp", _GIVE),
    ("a PDF document", "%PDF-", _GIVE),
    ("a gzip archive", r"\x1f\x8b", _UNPACK),
    ("a bzip2 archive", r"BZh[1-9]1AY", _UNPACK),
    ("an xz archive", r"\xfd7zXZ\x00", _UNPACK),
    ("a Zstandard archive", r"\x28\xb5\x2f\xfd", _UNPACK),
    ("a 7z archive", r"7z\xbc\xaf\x27\x1c", _UNPACK),
    ("a RAR archive", r"Rar!\x1a\x07", _UNPACK),
    ("a tar archive", r".{257}ustar", _UNPACK),
    ("an empty or cut-off zip archive", r"PK(?:\x05\x06|\x07\x08|\x01\x02)", _AGAIN),
    ("a NumPy array", r"\x93NUMPY", _GIVE),
    ("an HDF5 file, such as Keras writes", r"\x89HDF\r\n\x1a\n", _GIVE),
    ("a TensorFlow Lite model", r"....TFL[23]", _GIVE),
    ("an ONNX model", r"\x08[\x01-\x10]\x12.(?:pytorch|onnx|tf2onnx|skl2onnx|keras2onnx)", _GIVE),
    ("a TensorRT engine", "ftrt", _GIVE),
    ("a database", r"SQLite format 3\x00", _GIVE),
    ("a program", r"(?:\x7fELF|MZ.{6}|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe|#!)", _GIVE),
    (
        "a JSON text, such as a configuration or a server's message",
        _TEXT + r"[\[{]\s*(?:\"|\{|\[|[\]}0-9])",
        _GIVE,
    ),
    (
        "an unfinished download: it begins with nothing but zeros",
        r"\x00{64}",
        "Let the download end, or fetch the file again.",
    ),
)
"""Kinds of files that hold no weights we read, in the order they are asked: what to call it, how it begins, what to do
about it. Only files are asked that have no frame of ours."""


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
    if beginning.startswith(b"GGUF"):
        return "gguf"
    raise WeightsError(f"{path}: {_stranger(path, beginning, size)}")


def _is_pickle(beginning: bytes) -> bool:
    """A pickle says its protocol, and then an operation; torch's are of the second protocol."""
    protocol, operation = beginning[1:2], beginning[2:3]
    return beginning[0] == _PICKLE and b"\x02" <= protocol <= b"\x05" and operation in _OPERATIONS


def _stranger(path: Path, beginning: bytes, size: int) -> str:
    for name, pattern, advice in STRANGERS:
        if re.match(pattern.encode("latin-1"), beginning, re.DOTALL | re.IGNORECASE):
            return f"{name}, no weights file. {advice}"
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
