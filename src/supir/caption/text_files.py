"""Captions that people wrote: in the files beside a picture, or one text for all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supir.caption.words import Closable, clean_caption
from supir.data.provenance import provenance_of
from supir.data.sources import decoded, find_photographs
from supir.errors import CaptionerError, ImageReadError, OptionError

_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class TextFileCaptioner(Closable):
    """Reads what is written; looks at no picture.

    Args:
        file: a text, in UTF-8 or with its encoding's mark, that holds for every picture; None reads what lies beside
            each, by the same rule as a data set (`supir.data.provenance`): ``photo.jpg.txt``, ``photo.txt``,
            ``photo.jpg.json``, ``photo.json``, then the list of its folder.

    Raises:
        OptionError: the file is not there, or larger than a megabyte.
    """

    file: Path | None = None

    def __post_init__(self) -> None:
        if self.file is None:
            return
        if not self.file.is_file():
            raise OptionError(f"captioner {self.file}: there is no such text file")
        if self.file.stat().st_size > _MAX_BYTES:
            raise OptionError(f"captioner {self.file}: larger than {_MAX_BYTES} bytes; a caption is a line of text")

    @property
    def name(self) -> str:
        """For the record of a result."""
        return "beside" if self.file is None else self.file.name

    def read(self, picture: Path) -> str:
        """The caption of a picture file; empty when nothing is said of it.

        Raises:
            ImageReadError: a file beside the picture cannot be understood, or the picture is not there.
            CaptionerError: the text file cannot be read.
        """
        if self.file is not None:
            try:
                return clean_caption(decoded(self.file.read_bytes()[:_MAX_BYTES], str(self.file)))
            except ImageReadError as error:
                raise CaptionerError(f"captioner {error}") from error
            except OSError as error:
                raise CaptionerError(f"captioner {self.file}: cannot be read: {error.strerror or error}") from error
        [*found] = find_photographs([picture])
        if not found:
            return ""
        said = provenance_of(found[0], None, None, None)
        if said.refused and not said.caption:
            raise ImageReadError(said.refused, picture)
        return clean_caption(said.caption)
