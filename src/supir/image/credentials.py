"""C2PA by c2pa-python: results signed with the user's own certificate, and what a file's manifest comes to (C2PA 2.4).

The manifest says what was opened (the input, with its hash), what was done and by what, and binds every byte of the
file but its own. Nothing is fetched: neither manifests from elsewhere nor answers about certificates.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import pyvips

from supir import __version__
from supir.errors import ImageWriteError, MissingExtraError, OptionError
from supir.files import sentence
from supir.image.developing import kind_to_develop
from supir.image.marking import PREVIEWED, RESTORED
from supir.image.opening import opened
from supir.image.paths import kind_of
from supir.options import SigningOptions

_ALONE = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}
_TYPES = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WebP": "image/webp", "TIFF": "image/tiff",
    "HEIC": "image/heic", "AVIF": "image/avif",
}  # fmt: skip
_ALGORITHMS = {  # object identifiers of keys, those of curves first: one of RSA may also say how a CA has signed
    "06082a8648ce3d030107": "es256", "06052b81040022": "es384", "06052b81040023": "es512", "06032b6570": "ed25519",
    "06092a864886f70d010101": "ps256", "06092a864886f70d01010a": "ps256",
}  # fmt: skip
_NEEDED = (
    "needed are a certificate for signing (for e-mail, documents or C2PA claims; not one that signs itself), as PEM"
    " with those that it stands on behind it, and its private key, as PEM in PKCS#8 without a password"
)


def _c2pa(purpose: str) -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise MissingExtraError("c2pa-python", "c2pa", purpose) from error
    return c2pa


def _context(c2pa: Any) -> Any:
    return c2pa.Context(c2pa.Settings.from_dict(_ALONE))


@dataclass(frozen=True)
class Signature:
    """What signs a result that is made of a picture file."""

    options: SigningOptions
    source: Path | None = None
    """The input; None stands for one in a trial."""

    def check(self, target: Path) -> None:
        """Sign a picture of a few pixels, so that what cannot be signed is found before the work.

        Args:
            target: the result; its suffix says the format.

        Raises:
            OptionError: by this certificate and key nothing can be signed.
            ImageWriteError: the input cannot be named in a manifest.
            MissingExtraError: c2pa-python is not installed.
        """
        kind = kind_of(target)
        self.put(io.BytesIO(_trial(kind)), io.BytesIO(), kind, {}, RESTORED)

    def put(self, unsigned: BinaryIO, signed: BinaryIO, kind: str, record: Mapping[str, str], source_type: str) -> None:
        """Copy an open picture file to another, with a manifest.

        Args:
            unsigned: read from its start.
            signed: empty, read and written.
            kind: JPEG, PNG, WebP, TIFF or AVIF.
            record: of the result.
            source_type: of the result, a URI of the IPTC's digital source types.

        Raises:
            OptionError, ImageWriteError, MissingExtraError: as ``check``.
        """
        c2pa = _c2pa("signing")
        made = _manifest(kind, record, source_type)
        try:
            builder = c2pa.Builder(made, context=_context(c2pa))
            self._name_input(builder, kind, record)
        except c2pa.C2paError as error:
            raise ImageWriteError(f"{self.source}: cannot be named as the input in a manifest: {error}") from error
        unsigned.seek(0)
        try:
            builder.sign(self._signer(c2pa), _TYPES[kind], unsigned, signed)
        except c2pa.C2paError as error:
            reason = str(error).removeprefix("Signature: ")
            raise OptionError(f"c2pa_cert and c2pa_key: nothing can be signed by them: {reason}; {_NEEDED}") from error

    def _name_input(self, builder: Any, kind: str, record: Mapping[str, str]) -> None:
        about = {"relationship": "parentOf", "label": _INPUT, "title": "the input"}
        if self.source is None:
            builder.add_ingredient(about, _TYPES[kind], io.BytesIO(_trial(kind)))
            return
        about |= {"title": self.source.name}
        if "source_sha256" in record:
            about |= {"description": f"SHA-256 {record['source_sha256']}"}
        with opened(self.source) as source:
            own = source.kind
        with self.source.open("rb") as stream:
            own = kind_to_develop(stream.read(64), stream) or own
            if own in _TYPES:
                stream.seek(0)
                builder.add_ingredient(about, _TYPES[own], stream)
            else:  # a raw file, of which C2PA knows nothing but what is said here
                builder.add_ingredient(about, _TYPES[kind], io.BytesIO(_trial(kind)))

    def _signer(self, c2pa: Any) -> Any:
        info = c2pa.C2paSignerInfo(
            _algorithm(self._certificate), self._certificate, _pem(self.options, "c2pa_key"), None
        )
        return c2pa.Signer.from_info(info)

    @cached_property
    def _certificate(self) -> bytes:
        return _pem(self.options, "c2pa_cert")


_INPUT = "input"


def _manifest(kind: str, record: Mapping[str, str], source_type: str) -> dict[str, Any]:
    """What is signed: the input was opened, and then edited, or enhanced where nothing was generated."""
    agent = {"name": "supir", "version": __version__}
    origin = {"source_sha256": record["source_sha256"]} if "source_sha256" in record else {}
    done = {
        "action": "c2pa.enhanced" if source_type == PREVIEWED else "c2pa.edited",
        "digitalSourceType": source_type,
        "softwareAgent": agent,
        "description": f"restored by {record['model']}" if "model" in record else "restored",
    }
    opening = {"action": "c2pa.opened", "parameters": {"ingredientIds": [_INPUT], **origin}}
    return {
        "claim_generator_info": [agent], "format": _TYPES[kind],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [opening, done]}}],
    }  # fmt: skip


def _trial(kind: str) -> bytes:
    image = pyvips.Image.black(16, 16, bands=3).copy(interpretation="srgb")
    return bytes(
        image.write_to_buffer({"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "TIFF": ".tif", "AVIF": ".avif"}[kind])
    )


def _pem(options: SigningOptions, name: str) -> bytes:
    """The text of a file that an option names."""
    path = Path(getattr(options, name))
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = sentence(error, failed="cannot be read") if isinstance(error, OSError) else str(error)
        raise OptionError(f"{name}: {reason}; {_NEEDED}") from None
    if b"-----BEGIN " not in data or b"\0" in data:
        raise OptionError(f"{name}: the file is no PEM; {_NEEDED}")
    return data


def _algorithm(certificate: bytes) -> str:
    """By which the key of the first certificate signs (RFC 5480, 8017, 8410)."""
    first = certificate.partition(b"-----BEGIN CERTIFICATE-----")[2].partition(b"-----END")[0]
    try:
        data = base64.b64decode(first).hex()
    except binascii.Error:
        data = ""
    for identifier, name in _ALGORITHMS.items():
        if identifier in data:
            return name
    raise OptionError(f"c2pa_cert: holds no certificate of a key that C2PA knows (ECDSA, RSA, Ed25519); {_NEEDED}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the C2PA manifest of a file comes to."""

    state: str
    """absent, invalid, valid, or trusted: valid, and its certificate leads to one that this machine trusts; unread:
    c2pa-python is not installed, and nobody has looked.
    """
    signed_by: str = ""
    actions: tuple[Mapping[str, Any], ...] = ()
    inputs: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[str, ...] = field(default=())
    """Why it is invalid."""


def manifest_of(path: Path) -> Manifest:
    """Read and check the manifest of a picture file."""
    try:
        c2pa = _c2pa("reading C2PA")
    except MissingExtraError:
        return Manifest(state="unread")
    try:
        with path.open("rb") as stream:
            reader = c2pa.Reader.try_create(None, stream, context=_context(c2pa))
            if reader is None:
                return Manifest(state="absent")
            told = json.loads(reader.json())
    except (c2pa.C2paError.RemoteManifest, c2pa.C2paError.NotSupported):
        return Manifest(state="absent")  # it would be elsewhere, and is not fetched; or this kind of file has none
    except c2pa.C2paError as error:
        return Manifest(state="invalid", problems=(str(error),))
    active = told.get("manifests", {}).get(told.get("active_manifest"), {})
    signer = active.get("signature_info") or {}
    names = [signer[name] for name in ("common_name", "issuer") if signer.get(name)]
    state = str(told.get("validation_state", "Invalid")).lower()
    failures = (told.get("validation_results") or {}).get("activeManifest", {}).get("failure", [])
    return Manifest(
        state=state,
        signed_by=", ".join(dict.fromkeys(names)),
        actions=tuple(
            action
            for assertion in active.get("assertions", [])
            if assertion.get("label", "").startswith("c2pa.actions")
            for action in assertion.get("data", {}).get("actions", [])
        ),
        inputs=tuple(active.get("ingredients", [])),
        problems=tuple(f"{each['code']}: {each.get('explanation', '')}" for each in failures)
        if state == "invalid"
        else (),
    )
