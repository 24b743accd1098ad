"""The device itself keeps the rules that the other cases rely on."""

from __future__ import annotations

import pytest
import torch

from simulated import device


def test_it_is_an_accelerator_and_holds_real_numbers() -> None:
    assert torch.accelerator.is_available()
    assert torch.accelerator.current_accelerator() == torch.device("sim")
    there = torch.arange(6.0).to("sim").view(2, 3)
    assert there.device == torch.device("sim:0")
    assert torch.arange(3.0, device="sim").shape == torch.eye(3, device="sim")[0].shape == (3,)
    assert torch.equal((there @ there.T).cpu(), torch.tensor([[5.0, 14.0], [14.0, 50.0]]))
    there[0] = 7
    assert there.sum().item() == 33


def test_gradients_are_those_of_the_processor() -> None:
    layers = [torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)]
    layers[1].load_state_dict(layers[0].state_dict())
    for layer, place in zip(layers, ("cpu", "sim"), strict=True):
        layer.to(place)
        optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
        layer(torch.ones(4, 3, device=place)).square().mean().backward()
        optimiser.step()
    assert torch.allclose(layers[0].weight, layers[1].weight.cpu())


def test_devices_are_not_mixed() -> None:
    there, here = torch.ones(2, device="sim"), torch.ones(2)
    with pytest.raises(AssertionError, match="of the device and of the processor"):
        there + here
    assert (there * torch.tensor(2.0)).cpu().tolist() == [2, 2]  # as on CUDA
    with pytest.raises(AssertionError, match="generator of the processor"):
        torch.randn(2, generator=torch.Generator(), device="sim")
    with pytest.raises(AssertionError, match="float64 on the device"):
        there.double()


def test_waits_and_copies_are_counted() -> None:
    there, here = torch.arange(3.0, device="sim"), torch.zeros(3)
    with device.counted() as none:
        (there + 1).relu()
    assert none == device.Counts(0, 0)
    with device.counted() as waits:
        float(there[0]), bool((there > 0).all()), there.cpu(), here.copy_(there), there[there > 0]
    assert (waits.waits, waits.copies) == (5, 0)
    with device.counted() as copies:
        here.to("sim"), there.copy_(here), torch.tensor([1.0], device="sim"), there[torch.tensor([0])]
    assert (copies.waits, copies.copies) == (0, 4)


def test_data_is_set_with_what_is_inside() -> None:
    """As group offload does."""
    layer = torch.nn.Linear(2, 2, bias=False)
    kept = layer.weight.data
    layer.weight.data = kept.to("sim")
    assert layer(torch.ones(1, 2, device="sim")).device.type == "sim"
    layer.weight.data = kept * 2
    assert torch.equal(layer(torch.ones(1, 2)), 2 * torch.ones(1, 2) @ kept.T)
    assert isinstance(layer.weight, torch.nn.Parameter)
