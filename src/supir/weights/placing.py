"""Where the networks of a pipeline are: all of them on one device, or there only while they are at work."""

from __future__ import annotations

from typing import Any, Self

import torch
from diffusers import DiffusionPipeline
from diffusers.hooks import HookRegistry
from torch import nn

from supir.errors import OptionError
from supir.models.offload import LEAVES
from supir.models.quantized import check_quantized, quantized_kind
from supir.tensors import memory

SHARE = 0.8
"""Of a device's free memory, what weights may take before it is known what a picture needs beside them."""


class PlacedPipeline(DiffusionPipeline):
    """A pipeline of diffusers whose networks are put on a device by ``place``, offloaded by diffusers' own methods."""

    _chosen: tuple[torch.device, str] | None = None
    """Where ``place`` has put the networks by a choice of its own; None where somebody else has decided."""

    def place(self, device: torch.device | str, offload: str = "auto") -> Self:
        """Put the networks on a device.

        Args:
            device: where they run.
            offload: as in ``NetworkOptions``. ``auto`` goes by the weights and the free memory, and may be decided
                anew when it is known what a picture needs.

        Raises:
            OptionError: networks on the processor cannot be offloaded to it, or lie in a type that the device lacks.
            OutOfMemoryError: they do not fit there.
        """
        device = torch.device(device)
        if device.type == "cpu" and offload not in ("auto", "none"):
            raise OptionError(
                f"offload is {offload!r}, and the networks run on the cpu, from where there is nothing to offload;"
                " leave it out, or name another device"
            )
        for name, network in self._networks().items():
            if name in ("unet", "adaptor"):
                check_quantized(quantized_kind(network), device)
        way = self._by_weights(device) if offload == "auto" else offload
        self._put(device, way)
        self._chosen = (self._execution_device, way) if offload == "auto" else None
        return self

    @property
    def offload(self) -> str:
        """How the networks are offloaded now, whoever has arranged that: as in ``NetworkOptions``, never ``auto``."""
        if getattr(self, "_all_hooks", None):
            return "model"
        for network in self._networks().values():
            for layer in network.modules():
                hooks = getattr(layer, "_diffusers_hook", None)
                if hooks is not None and hooks.get_hook("group_offloading") is not None:
                    return "group"
                if getattr(getattr(layer, "_hf_hook", None), "offload", False):
                    return "sequential"
        return "none"

    @property
    def chooses_offload(self) -> bool:
        """Whether the way to offload may be chosen for each picture."""
        return self._chosen == (self._execution_device, self.offload)

    def offload_as_chosen(self, way: str) -> None:
        """Offload otherwise, where the way may be chosen."""
        if self.chooses_offload and way != self.offload:
            device = self._execution_device
            self._put(device, way)
            self._chosen = (self._execution_device, way)

    def room(self) -> int | None:
        """Bytes that the networks and all that they make may fill on their device; None where nobody knows."""
        device = self._execution_device
        free = memory.available(device)
        if free is None:
            return None
        tensors = (each for part in self._networks().values() for each in (*part.parameters(), *part.buffers()))
        return free + sum(memory.stored_bytes(each) for each in tensors if each.device.type == device.type)

    def release(self, *networks: nn.Module) -> None:
        """Networks that are not at work for a while leave the device where whole networks come and go."""
        if getattr(self, "_all_hooks", None):
            for network in networks:
                network.to("cpu")
            memory.give_back()

    def _put(self, device: torch.device, way: str) -> None:
        if self.offload != "none":
            self._take_back()
        if way == "none":
            self.to(device)
        elif way == "model":
            self.enable_model_cpu_offload(device=device)
        elif way == "sequential":
            self.enable_sequential_cpu_offload(device=device)
        else:
            # Streams bring the next layer while one is at work; other devices' are not known to do so.
            self.enable_group_offload(device, offload_type=LEAVES, use_stream=device.type == "cuda")

    def _take_back(self) -> None:
        """All networks to the processor, without whatever moved them."""
        self.remove_all_hooks()
        self._all_hooks: list[Any] = []
        for network in self._networks().values():
            for layer in network.modules():
                if hasattr(layer, "_diffusers_hook"):
                    registry: HookRegistry = layer._diffusers_hook
                    for name in [each for each in registry.hooks if "group_offloading" in each or "layer_exec" in each]:
                        registry.remove_hook(name, recurse=False)
        self.to("cpu", silence_dtype_warnings=True)
        memory.give_back()

    def _by_weights(self, device: torch.device) -> str:
        """The fastest way to offload for which the weights leave room on a device."""
        free = memory.available(device)
        if free is None:
            return "none"
        sizes = {
            name: sum(map(memory.stored_bytes, (*network.parameters(), *network.buffers())))
            for name, network in self._networks().items()
        }
        together = sizes.get("unet", 0) + sizes.get("adaptor", 0)
        for way, held in (("none", sum(sizes.values())), ("model", max(together, *sizes.values()))):
            if held <= SHARE * free:
                return way
        return "group"

    def _networks(self) -> dict[str, nn.Module]:
        return {name: part for name, part in self.components.items() if isinstance(part, nn.Module)}
