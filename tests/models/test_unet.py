"""The UNet with connectors against diffusers' own, and what the adaptor hands over."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from supir.errors import OptionError
from supir.models.adaptor import SupirAdaptor
from supir.models.connectors import ZeroConv, ZeroCrossAttention, ZeroSFT
from supir.models.unet import SupirUNet, encoder_channels
from tiny import TRUNK, randomised


@pytest.fixture(scope="module")
def unet() -> SupirUNet:
    return randomised(SupirUNet(**TRUNK, connector_hidden_channels=16), 2)


@pytest.fixture(scope="module")
def adaptor() -> SupirAdaptor:
    return randomised(SupirAdaptor(**TRUNK), 3)


def inputs(height: int = 16, width: int = 24) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "sample": torch.randn(2, 4, height, width),
        "timestep": torch.tensor([3, 900]),
        "encoder_hidden_states": torch.randn(2, 9, 48),
        "added_cond_kwargs": {"text_embeds": torch.randn(2, 24), "time_ids": torch.randint(0, 1024, (2, 6)).float()},
    }


def plain_copy(unet: SupirUNet) -> UNet2DConditionModel:
    names = inspect.signature(UNet2DConditionModel.__init__).parameters
    plain = UNet2DConditionModel(**{name: value for name, value in unet.config.items() if name in names})
    plain.load_state_dict({k: v for k, v in unet.state_dict().items() if not k.startswith("connectors.")})
    return plain.eval()


@torch.no_grad()
def test_connectors_off_is_plain_sdxl_bit_for_bit(unet: SupirUNet, adaptor: SupirAdaptor) -> None:
    given = inputs()
    control = adaptor(**given, hint=torch.randn(2, 4, 16, 24))
    plain = plain_copy(unet)(**given).sample
    assert torch.equal(unet(**given).sample, plain)
    assert torch.equal(unet(**given, control=control, control_scale=0.0).sample, plain)
    assert (unet(**given, control=control).sample - plain).abs().max() > 0.01


@torch.no_grad()
def test_control_scale_per_sample(unet: SupirUNet, adaptor: SupirAdaptor) -> None:
    given = inputs()
    control = adaptor(**given, hint=torch.randn(2, 4, 16, 24))
    mixed = unet(**given, control=control, control_scale=torch.tensor([0.0, 0.7])).sample
    assert torch.allclose(mixed[0], unet(**given, control=control, control_scale=0.0).sample[0], atol=1e-5)
    assert torch.allclose(mixed[1], unet(**given, control=control, control_scale=0.7).sample[1], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(13, 11), (5, 30)])
def test_odd_latent_sizes(unet: SupirUNet, adaptor: SupirAdaptor, size: tuple[int, int]) -> None:
    given = inputs(*size)
    control = adaptor(**given, hint=torch.randn(2, 4, *size))
    assert unet(**given, control=control).sample.shape == (2, 4, *size)


@torch.no_grad()
def test_a_finished_vector_equals_its_parts(unet: SupirUNet) -> None:
    from supir.models.unet import condition_vector

    given = inputs()
    vector = condition_vector(given["added_cond_kwargs"], TRUNK["addition_time_embed_dim"])
    assert vector.shape == (2, TRUNK["projection_class_embeddings_input_dim"])
    expected = unet(**given).sample
    assert torch.equal(unet(**(given | {"added_cond_kwargs": {"vector": vector}})).sample, expected)


def test_fresh_connectors_pass_the_normalised_concatenation() -> None:
    connector = ZeroSFT(32, 32, 64)
    control, skip, decoder = torch.randn(1, 32, 4, 4), torch.randn(1, 32, 4, 4), torch.randn(1, 64, 4, 4)
    joined = torch.cat([decoder, skip], dim=1)
    expected = torch.nn.functional.group_norm(joined, 32, eps=1e-5)
    assert torch.allclose(connector(control, skip, decoder, 1.0), expected, atol=1e-6)


def test_connectors_of_sdxl_stand_where_published() -> None:
    with torch.device("meta"):
        unet = SupirUNet()
    table = [
        (c.to_q.in_features, c.to_k.in_features)
        if isinstance(c, ZeroCrossAttention)
        else (c.zero_conv.in_channels, c.zero_conv.out_channels, c.norm.num_channels - c.zero_conv.out_channels)
        for c in unet.connectors
    ]
    assert table == [
        (320, 320, 320), (320, 320, 320), (320, 320, 640), (640, 320), (320, 320, 640), (640, 640, 640),
        (640, 640, 1280), (1280, 640), (640, 640, 1280), (1280, 1280, 1280), (1280, 1280, 1280), (1280, 1280, 0),
    ]  # fmt: skip
    assert encoder_channels((320, 640, 1280), 2) == [320] * 4 + [640] * 3 + [1280] * 3


@torch.no_grad()
def test_save_and_load(unet: SupirUNet, adaptor: SupirAdaptor, tmp_path: Path) -> None:
    given = inputs()
    unet.save_pretrained(tmp_path / "unet")
    adaptor.save_pretrained(tmp_path / "adaptor")
    control = SupirAdaptor.from_pretrained(tmp_path / "adaptor")(**given, hint=given["sample"])
    again = SupirUNet.from_pretrained(tmp_path / "unet")
    expected = unet(**given, control=adaptor(**given, hint=given["sample"])).sample
    assert torch.equal(again(**given, control=control).sample, expected)
    assert again.config.connector_hidden_channels == 16


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    given = inputs()
    gradients = []
    for checkpointing in (False, True):
        unet = randomised(SupirUNet(**TRUNK, connector_hidden_channels=16), 2).train()
        adaptor = randomised(SupirAdaptor(**TRUNK), 3).train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
            adaptor.enable_gradient_checkpointing()
        unet(**given, control=adaptor(**given, hint=given["sample"])).sample.square().mean().backward()
        gradients.append([p.grad for p in [*unet.parameters(), *adaptor.parameters()]])
    assert all(gradient is not None for gradient in gradients[0])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@torch.no_grad()
def test_zero_conv_adds_control_to_the_skip() -> None:
    connector = randomised(ZeroConv(16, 32), 5)
    control, skip, decoder = torch.randn(2, 16, 4, 4), torch.randn(2, 32, 4, 4), torch.randn(2, 64, 4, 4)
    added = torch.einsum("oc,bchw->bohw", connector.zero_conv.weight[:, :, 0, 0], control)
    added += connector.zero_conv.bias[:, None, None]
    assert torch.allclose(connector(control, skip, None, 1.0), skip + added, atol=1e-5)
    half = connector(control, skip, decoder, torch.tensor([0.0, 0.5]))
    assert torch.equal(half[:, :64], decoder)
    assert torch.equal(half[0, 64:], skip[0])
    assert torch.allclose(half[1, 64:], skip[1] + 0.5 * added[1], atol=1e-5)


@torch.no_grad()
def test_a_unet_of_zero_convs(adaptor: SupirAdaptor, tmp_path: Path) -> None:
    unet = randomised(SupirUNet(**TRUNK, connector_kind="zero_conv"), 2)
    given = inputs()
    control = adaptor(**given, hint=given["sample"])
    unet.save_pretrained(tmp_path)
    again = SupirUNet.from_pretrained(tmp_path)
    assert {type(c) for c in again.connectors} == {ZeroConv, ZeroCrossAttention}
    expected = unet(**given, control=control).sample
    assert torch.equal(again(**given, control=control).sample, expected)
    assert torch.equal(unet(**given, control=control, control_scale=0.0).sample, plain_copy(unet)(**given).sample)
    assert not torch.allclose(expected, unet(**given).sample, atol=1e-2)


def test_an_unknown_connector_is_refused() -> None:
    with pytest.raises(OptionError, match="connector_kind is 'sft'; it must be one of zero_sft, zero_conv"):
        SupirUNet(**TRUNK, connector_kind="sft")
