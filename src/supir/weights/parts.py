"""Model folders without weights: they say in which files those lie, which are joined when the folder is loaded.

Another base, or other SUPIR weights, then cost a file and no copy of all. The files are known by their hashes, so that
a folder stands for the same weights wherever they lie, and says so when they have changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from supir.errors import WeightsError
from supir.weights.catalog import PARTS, known_hash
from supir.weights.gather import Gathered, gather

HASH = "weights_sha256"
"""In the model index: of all the files; so that the hash of the folder is one of the weights too."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What was given for a folder, as `gather` takes it, and the hash of each file."""

    sdxl: str
    supir: str | None = None
    vae: str | None = None
    text: str | None = None
    mix: tuple[str, float] | None = None
    prediction_type: str | None = None
    sha256: dict[str, str]

    @classmethod
    def of(cls, given: Gathered, *, mix: tuple[Path | str, float] | None, **named: Path | str | None) -> Self:
        """What was opened, under the names that it was given by."""
        places: dict[str, Any] = {
            name: value if value is None or name == "prediction_type" else str(Path(value).resolve())
            for name, value in named.items()
        }
        places["mix"] = None if mix is None else (str(Path(mix[0]).resolve()), mix[1])
        return cls(**places, sha256={name: known_hash(path) for name, path in given.files.items()})

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Of a folder; None where it holds its weights itself.

        Raises:
            WeightsError: what it says cannot be read.
        """
        try:
            said = json.loads((folder / PARTS).read_text(encoding="utf-8"))
            return cls(**said | {"mix": said.get("mix") and tuple(said["mix"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(f"{folder / PARTS}: cannot be read: {error}; make the folder again") from error

    def write(self, folder: Path) -> None:
        """Into a folder that has its index already."""
        (folder / PARTS).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        index = folder / "model_index.json"
        listing = json.loads(index.read_text(encoding="utf-8")) | {HASH: _hash_of(self.sha256)}
        index.write_text(json.dumps(listing, indent=2) + "\n", encoding="utf-8")

    def gathered(self, folder: Path) -> Gathered:
        """The files, opened.

        Raises:
            WeightsError: one is gone, or holds something else now.
        """
        places = [self.sdxl, self.supir, self.vae, self.text, self.mix and self.mix[0]]
        for place in filter(None, places):
            if not Path(place).exists():
                raise WeightsError(
                    f"{folder}: its weights lay in {place}, where nothing is now; bring the file back, or convert again"
                )
        named = {name: value for name, value in asdict(self).items() if name not in ("sdxl", "sha256")}
        given = gather(self.sdxl, **named)
        now = {name: known_hash(path) for name, path in given.files.items()}
        if changed := [name for name in now.keys() | self.sha256.keys() if now.get(name) != self.sha256.get(name)]:
            raise WeightsError(
                f"{folder}: {min(changed)} is not the file that it was made with; convert again if that is meant"
            )
        return given


def _hash_of(hashes: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{value}  {name}\n" for name, value in sorted(hashes.items())).encode()).hexdigest()
