"""Weights that come to the device and leave it layer by layer."""

from __future__ import annotations

from typing import Any

import torch

from supir.errors import OptionError

LEAVES = "leaf_level"


class OffloadedByLeaves:
    """What diffusers' group offload may do to our networks: move single layers.

    Several methods run parts of the network by hand (the connectors between decoder layers, the outermost blocks alone,
    tiles in lock step), and blocks whose own ``forward`` is not called would never bring their weights.
    """

    def enable_group_offload(
        self,
        onload_device: torch.device | str,
        offload_device: torch.device | str = "cpu",
        offload_type: str = LEAVES,
        *more: Any,
        **keywords: Any,
    ) -> None:
        """As diffusers'.

        Raises:
            OptionError: ``offload_type`` is another than ``leaf_level``.
        """
        if getattr(offload_type, "value", offload_type) != LEAVES:
            raise OptionError(
                f"offload_type is {offload_type!r}; these networks run their blocks layer by layer, so it must be"
                f" {LEAVES!r}, which holds less on the device, too"
            )
        devices = torch.device(onload_device), torch.device(offload_device)
        super().enable_group_offload(*devices, offload_type, *more, **keywords)  # type: ignore[misc]
