"""Time one full-size denoiser call: adaptor, connectors and SDXL UNet, both guidance branches, random weights.

    python bench/full_size_call.py            # 16 GB of memory, some minutes
    python bench/full_size_call.py --tiny     # the same program in seconds, to try it

Prints JSON and then one line: seconds (median and each), operations, the measured matrix-multiply peak of this machine,
the fraction of it that the call reaches, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from supir.models.adaptor import SupirAdaptor
from supir.models.unet import SDXL_UNET, SupirUNet

TINY = {
    "block_out_channels": (32, 64, 128),
    "transformer_layers_per_block": (1, 1, 1),
    "attention_head_dim": (2, 4, 8),
    "cross_attention_dim": 64,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 16 + 6 * 8,
}
BATCH, LATENT_CHANNELS, NUM_TOKENS = 2, 4, 77


def make_networks(config: dict[str, object]) -> tuple[SupirUNet, SupirAdaptor]:
    """The two networks without memory: their parameters are on the meta device.

    The adaptor takes what it shares with the UNet; the rest of the configuration is about the UNet's decoder.
    """
    shared = {name: config[name] for name in inspect.signature(SupirAdaptor).parameters if name in config}
    with torch.device("meta"):
        return SupirUNet(**config).eval(), SupirAdaptor(**shared).eval()


def fill(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give a meta network real parameters: one block of normal numbers, repeated and scaled by the fan-in.

    Drawing billions of numbers would take longer than the call; what they are does not change its time, as long as
    they are neither zero, denormal nor so large that the activations overflow.
    """
    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(seed))
    network.to_empty(device="cpu")
    for parameter in network.parameters():
        flat = parameter.data.view(-1)
        for start in range(0, flat.numel(), block.numel()):
            part = flat[start : start + block.numel()]
            part.copy_(block[: part.numel()])
        if parameter.ndim > 1:
            parameter.data.mul_(parameter[0].numel() ** -0.5)
        else:
            parameter.data.mul_(0.1).add_(0.5)
    return network


def make_inputs(config: dict[str, object], side: int, device: str) -> dict[str, Tensor]:
    """What one call gets: latent and hint (2, 4, side, side), tokens (2, 77, width), vector, timesteps."""
    with torch.device(device):
        return {
            "latent": torch.randn(BATCH, LATENT_CHANNELS, side, side),
            "hint": torch.randn(BATCH, LATENT_CHANNELS, side, side),
            "tokens": torch.randn(BATCH, NUM_TOKENS, config["cross_attention_dim"]),
            "vector": torch.randn(BATCH, config["projection_class_embeddings_input_dim"]),
            "timestep": torch.full((BATCH,), 500, dtype=torch.int64),
        }


@torch.inference_mode()
def call(unet: SupirUNet, adaptor: SupirAdaptor, inputs: dict[str, Tensor]) -> Tensor:
    """One denoiser call: the adaptor reads the hint, the UNet predicts with its features."""
    latent, timestep, tokens = inputs["latent"], inputs["timestep"], inputs["tokens"]
    added = {"vector": inputs["vector"]}
    control = adaptor(latent, timestep, tokens, added, inputs["hint"])
    return unet(latent, timestep, tokens, added_cond_kwargs=added, control=control).sample


def count_operations(config: dict[str, object], side: int) -> int:
    """Floating-point operations of one call (a multiply-add counts two), from the shapes alone."""
    unet, adaptor = make_networks(config)
    with FlopCounterMode(display=False) as counter:
        call(unet, adaptor, make_inputs(config, side, "meta"))
    return counter.get_total_flops()


def matmul_peak(sizes: tuple[int, ...], repeats: int = 3) -> float:
    """Best float32 matrix-multiply rate over a few square sizes, in operations per second."""
    rates = []
    for size in sizes:
        left, right = torch.randn(size, size), torch.randn(size, size)
        torch.mm(left, right)
        rates += [2 * size**3 / seconds(lambda left=left, right=right: torch.mm(left, right)) for _ in range(repeats)]
    return max(rates)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one execution."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_gigabytes() -> float:
    """Largest resident memory of this process so far, in 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure(
    config: dict[str, object], side: int, repeats: int, peak_sizes: tuple[int, ...] = (1024, 2048, 4096)
) -> dict[str, object]:
    """Everything that is printed. The peak is measured before and after, since other work may share the machine."""
    operations = count_operations(config, side)
    peak = matmul_peak(peak_sizes)
    unet, adaptor = make_networks(config)
    num_parameters = sum(p.numel() for network in (unet, adaptor) for p in network.parameters())
    fill(unet, 0)
    fill(adaptor, 1)
    inputs = make_inputs(config, side, "cpu")
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        output = call(unet, adaptor, inputs)
        times.append(time.perf_counter() - start)
        if not torch.isfinite(output).all():
            raise SystemExit("the output is not finite: the time of this call means nothing")
    memory = peak_gigabytes()  # before the second peak measurement adds its own
    peak = max(peak, matmul_peak(peak_sizes))
    median = statistics.median(times)
    return {
        "batch": BATCH,
        "latent": [side, side],
        "tokens": NUM_TOKENS,
        "dtype": "float32",
        "parameters": num_parameters,
        "seconds": round(median, 3),
        "seconds_each": [round(value, 3) for value in times],
        "operations": operations,
        "operations_per_second": round(operations / median),
        "matmul_peak_per_second": round(peak),
        "fraction_of_peak": round(operations / median / peak, 4),
        "peak_memory_gb": round(memory, 2),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny networks: tries the program, measures nothing of use")
    parser.add_argument("--side", type=int, help="latent side (default 64; 16 with --tiny)")
    parser.add_argument("--repeats", type=int, default=3, help="calls that are timed (default 3)")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    side = chosen.side or (16 if chosen.tiny else 64)
    result = measure(TINY if chosen.tiny else SDXL_UNET, side, chosen.repeats)
    print(json.dumps(result, indent=2))
    print(
        f"one denoiser call, batch {BATCH}, {side}x{side} latent, float32: {result['seconds']:.1f} s (median of"
        f" {chosen.repeats}), {result['operations'] / 1e12:.2f} TFLOP,"
        f" {result['operations_per_second'] / 1e9:.0f} of {result['matmul_peak_per_second'] / 1e9:.0f} GFLOP/s"
        f" = {100 * result['fraction_of_peak']:.0f} % of the matrix-multiply peak,"
        f" {result['peak_memory_gb']:.1f} GB peak memory"
    )


if __name__ == "__main__":
    main()
