"""LoRAs over HTTP: by the names that the operator offers, and never by a path."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from service.serving import QUICK, Server, picture
from supir.errors import OptionError
from supir.jobs import Model
from supir.service.validation import chosen_options


def test_one_that_is_offered_acts(server: Server) -> None:
    with server.client() as client:
        plain = client.wait(client.submit(picture(), **QUICK))
        styled = client.wait(client.submit(picture(), lora="style:0.5", **QUICK))
        assert client.result(styled) != client.result(plain)
        assert client.result(client.wait(client.submit(picture(), **QUICK))) == client.result(plain)
        assert b"style 0.5 sha256:" in client.result(styled)


def test_nothing_else_can_be_named(server: Server, loras: Path) -> None:
    told = httpx2.get(f"{server.url}/v1/options").json()
    assert told["loras"] == ["sd1", "style"]
    secret = loras.parent / "secret.safetensors"
    with server.client() as client:
        for name in (
            secret,
            "../secret",
            "../secret.safetensors",
            loras / "style.safetensors",
            "style.safetensors",
            ".",
        ):
            with pytest.raises(OptionError, match="here; there are: sd1, style"):
                client.submit(picture(), lora=str(name), **QUICK)
        with pytest.raises(OptionError, match="lora: sd1: a LoRA of Stable Diffusion 1") as refused:
            client.submit(picture(), lora="sd1", **QUICK)
        assert str(loras) not in str(refused.value)


def test_a_service_without_a_folder_offers_none(model: Path, loras: Path) -> None:
    with pytest.raises(OptionError, match="this service offers none"):
        chosen_options({"lora": str(loras / "style.safetensors")}, Model(folder=model))
