"""LoRAs as a user names them: FILE or FILE:STRENGTH, several divided by |."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from supir.errors import OptionError

DIVIDER = "|"
MAX_STRENGTH = 10.0


@dataclass(frozen=True)
class Lora:
    """One that is asked for."""

    name: str
    """Of its file: a path, or what it is called in the folder of a service."""
    strength: float = 1.0

    def __str__(self) -> str:
        return self.name if self.strength == 1 else f"{self.name}:{self.strength:g}"


def split_loras(text: str) -> tuple[Lora, ...]:
    """The LoRAs of an option's text, in its order; none where it is empty.

    Raises:
        OptionError: one has no name, or a strength beyond -10 to 10, or is named twice.
    """
    found = tuple(map(_lora, text.split(DIVIDER))) if text.strip() else ()
    names = [each.name for each in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise OptionError(f"lora names {twice[0]} twice; give it once, with the strength that it is to have")
    return found


def joined_loras(loras: Iterable[Lora]) -> str:
    """The text that `split_loras` reads."""
    return DIVIDER.join(map(str, loras))


def _lora(text: str) -> Lora:
    name, sign, end = text.strip().rpartition(":")
    try:
        found = Lora(name.strip(), float(end)) if sign else Lora(end)
    except ValueError:  # a colon of the name: C:\style.safetensors
        found = Lora(text.strip())
    if not found.name or not -MAX_STRENGTH <= found.strength <= MAX_STRENGTH:
        raise OptionError(
            f"lora is {text.strip()!r}; it must be FILE or FILE:STRENGTH, the strength from {-MAX_STRENGTH:g} to"
            f" {MAX_STRENGTH:g}, several divided by {DIVIDER}"
        )
    return found
