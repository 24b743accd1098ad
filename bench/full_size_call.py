"""One full-size denoiser call: adaptor, connectors and SDXL UNet, both guidance branches, random weights, in many ways.

    python bench/full_size_call.py                          # every way, three rounds (17 GB of memory, an hour)
                                                            # where nothing multiplies bfloat16: float32's alone
    python bench/full_size_call.py --ways plain rows int8   # some of them
    python bench/full_size_call.py --shared-weights         # 2 GB: times and errors, but no memory
    python bench/full_size_call.py --tiny                   # the same program in a minute, to try it

Each call is made in a process of its own, way after way and round after round, so that whatever else the machine does
strikes all alike. Times are processor seconds a thread, and wall seconds beside them. The peak is that of float32
matrix multiplication for seconds right before and right after the call, by the same clock: the median, since a call of
half a minute is an average over the machine's good and bad moments too; the share of the best single product stands
beside it. Errors are those of the output against the plain way's, for the same weights and inputs. Writes
out/bench/full_size_call.json and .svg, prints a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from supir.models.adaptor import SupirAdaptor
from supir.models.quantized import quantize_weights
from supir.models.unet import SDXL_UNET, FeedForwardInRows, SupirUNet
from supir.weights.runtime import fill as fill_in

TINY = {
    "block_out_channels": (32, 64, 128),
    "transformer_layers_per_block": (1, 1, 1),
    "attention_head_dim": (2, 4, 8),
    "cross_attention_dim": 64,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 16 + 6 * 8,
}
BATCH, LATENT_CHANNELS, NUM_TOKENS = 2, 4, 77
PLAIN = "plain"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """How the networks are held and run."""

    what: str
    dtype: torch.dtype = torch.float32
    quantize: str = "none"
    channels_last: bool = False
    rows: bool = True
    compile: bool = False
    layerwise: bool = False


BF16 = torch.bfloat16
WAYS = {
    PLAIN: Way(what="float32, the networks as diffusers runs them", rows=False),
    "rows": Way(what="float32, feed-forward in rows: the default"),
    "channels_last": Way(what="float32, in rows, channels last", channels_last=True),
    "compile": Way(what="float32, --compile", compile=True),
    "bfloat16_first": Way(what="bfloat16, channels first", dtype=BF16),
    "bfloat16": Way(what="--dtype bfloat16 (channels last)", dtype=BF16, channels_last=True),
    "bfloat16_compile": Way(what="--dtype bfloat16 --compile", dtype=BF16, channels_last=True, compile=True),
    "int8": Way(what="--dtype bfloat16 --quantize int8", dtype=BF16, quantize="int8", channels_last=True),
    "int8_float32": Way(what="--dtype float32 --quantize int8", quantize="int8"),
    "float8": Way(what="--dtype bfloat16 --quantize float8", dtype=BF16, quantize="float8", channels_last=True),
    "float8_layerwise": Way(
        what="bfloat16 with diffusers' enable_layerwise_casting, float8", dtype=BF16, channels_last=True, layerwise=True
    ),
}


def worth_measuring() -> list[str]:
    """All ways; on a processor that does not multiply bfloat16, where a call in it takes an hour, those of float32."""
    fast = multiplies_bfloat16()
    return [name for name, way in WAYS.items() if fast or way.dtype is torch.float32]


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; without, a product in it takes many times as long."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16"))


def make_networks(config: dict[str, Any]) -> tuple[SupirUNet, SupirAdaptor]:
    """The two networks without memory: their parameters are on the meta device.

    The adaptor takes what it shares with the UNet; the rest of the configuration is about the UNet's decoder.
    """
    shared = {name: config[name] for name in inspect.signature(SupirAdaptor).parameters if name in config}
    with torch.device("meta"):
        return SupirUNet(**config).eval(), SupirAdaptor(**shared).eval()


def fill(network: nn.Module, way: Way, seed: int = 0, shared: dict[Any, nn.Module] | None = None) -> nn.Module:
    """Give a meta network real parameters: one block of normal numbers, repeated and scaled by the fan-in.

    Drawing billions of numbers would take longer than the call; what they are does not change its time, as long as
    they are neither zero, denormal nor so large that the activations overflow. Each is stored as soon as it is made.
    With ``shared``, layers of the same kind and shape take the weights of the first of them.
    """
    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(seed))
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    nn.Module.to(network, way.dtype)  # not diffusers' own, which warns of what does not concern us
    if way.quantize != "none":
        quantize_weights(network, way.quantize)
    for name, shape in shapes.items():
        layer, own = network.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        first = None if shared is None else shared.setdefault((type(layer), own, shape), layer)
        if first is not None and first is not layer:
            setattr(layer, own, getattr(first, own))
            if own == "weight" and hasattr(first, "scale"):
                layer.scale = first.scale
            continue
        weight = torch.empty(shape)
        flat = weight.view(-1)
        for start in range(0, flat.numel(), block.numel()):
            part = flat[start : start + block.numel()]
            part.copy_(block[: part.numel()])
        if weight.ndim > 1:
            weight.mul_(weight[0].numel() ** -0.5)
        else:
            weight.mul_(0.1).add_(0.5)
        fill_in(network, name, weight, way.dtype)
    return network


def prepared(config: dict[str, Any], way: Way, share: bool = False) -> tuple[SupirUNet, SupirAdaptor]:
    """The networks, filled and arranged."""
    found = make_networks(config)
    shared: dict[Any, nn.Module] | None = {} if share else None
    for seed, network in enumerate(found):
        fill(network, way, seed, shared)
        if way.layerwise:
            network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=way.dtype)
        if way.channels_last:
            network.to(memory_format=torch.channels_last)
        if way.compile:
            network.compile_repeated_blocks()
        for layer in network.modules():
            if not way.rows and isinstance(layer, FeedForwardInRows):
                layer.__class__ = FeedForward
    return found


def make_inputs(
    config: dict[str, Any], side: int, device: str, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """What one call gets: latent and hint (2, 4, side, side), tokens (2, 77, width), vector, timesteps."""
    torch.manual_seed(0)
    with torch.device(device):
        drawn = {
            "latent": torch.randn(BATCH, LATENT_CHANNELS, side, side),
            "hint": torch.randn(BATCH, LATENT_CHANNELS, side, side),
            "tokens": torch.randn(BATCH, NUM_TOKENS, config["cross_attention_dim"]),
            "vector": torch.randn(BATCH, config["projection_class_embeddings_input_dim"]),
        }
        made = {name: value.to(dtype) for name, value in drawn.items()}
        return made | {"timestep": torch.full((BATCH,), 500, dtype=torch.int64)}


@torch.no_grad()
def call(unet: SupirUNet, adaptor: SupirAdaptor, inputs: dict[str, Tensor]) -> Tensor:
    """One denoiser call: the adaptor reads the hint, the UNet predicts with its features."""
    latent, timestep, tokens = inputs["latent"], inputs["timestep"], inputs["tokens"]
    added = {"vector": inputs["vector"]}
    control = adaptor(latent, timestep, tokens, added, inputs["hint"])
    return unet(latent, timestep, tokens, added_cond_kwargs=added, control=control).sample


def count_operations(config: dict[str, Any], side: int) -> int:
    """Floating-point operations of one call (a multiply-add counts two), from the shapes alone."""
    unet, adaptor = make_networks(config)
    with FlopCounterMode(display=False) as counter:
        call(unet, adaptor, make_inputs(config, side, "meta"))
    return counter.get_total_flops()


def multiply(sizes: tuple[int, ...], rates: dict[int, list[float]], seconds: float = 1.5) -> None:
    """Add rates of float32 matrix products of a few square sizes, operations per processor second a thread."""
    for size in sizes:
        left, right = torch.randn(size, size), torch.randn(size, size)
        torch.mm(left, right)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            took = timed(lambda left=left, right=right: torch.mm(left, right))[1]
            rates.setdefault(size, []).append(2 * size**3 / took)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds of one execution, and processor seconds a thread."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, (time.process_time() - processor) / torch.get_num_threads()


def peak_gigabytes() -> float:
    """Largest resident memory of this process so far, in 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure(
    config: dict[str, Any],
    side: int,
    name: str,
    folder: Path,
    peak_sizes: tuple[int, ...] = (1024, 2048, 4096),
    share: bool = False,
) -> dict[str, Any]:
    """One way in this process: a first call, then the one that is timed; its output against the plain way's."""
    unet, adaptor = prepared(config, WAYS[name], share)
    inputs = make_inputs(config, side, "cpu", WAYS[name].dtype)
    first, _ = timed(lambda: call(unet, adaptor, inputs))
    memory = peak_gigabytes()  # before the peak measurement adds its own
    rates: dict[int, list[float]] = {}
    multiply(peak_sizes, rates)
    outputs: list[Tensor] = []
    wall, processor = timed(lambda: outputs.append(call(unet, adaptor, inputs).float()))
    multiply(peak_sizes, rates)
    if not torch.isfinite(outputs[0]).all():
        raise SystemExit("the output is not finite: the time of this call means nothing")
    expected = folder / f"plain-{side}{'-shared' if share else ''}.pt"
    if name == PLAIN:
        torch.save(outputs[0], expected)
    error: dict[str, float] = {}
    if expected.exists():
        plain = torch.load(expected, weights_only=True)
        away, rms = outputs[0] - plain, float(plain.square().mean().sqrt())
        error = {"rms_error": float(away.square().mean().sqrt()) / rms, "largest_error": float(away.abs().max()) / rms}
    return {
        "first_call_seconds": first, "wall_seconds": wall, "seconds": processor,
        "peak_rate": max(map(statistics.median, rates.values())), "best_rate": max(map(max, rates.values())),
        "memory_gb": memory, "threads": torch.get_num_threads(), "load": os.getloadavg()[0], **error,
    }  # fmt: skip


def run(names: list[str], rounds: int, side: int, flags: list[str], out: Path) -> dict[str, Any]:
    """Every way in fresh processes, round after round; writes the JSON after each, so that nothing is lost."""
    operations = count_operations(TINY if "--tiny" in flags else SDXL_UNET, side)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    report: dict[str, Any] = {}
    out.mkdir(parents=True, exist_ok=True)
    for _ in range(rounds):
        for name in names:
            order = [sys.executable, __file__, "--one", name, "--out", str(out), "--side", str(side), *flags]
            done = subprocess.run(order, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                print(f"{name}: failed with {done.returncode}", file=sys.stderr, flush=True)
                continue
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, found[name][-1], file=sys.stderr, flush=True)
            report = summary(found, operations, side) | {"flags": flags}
            (out / "full_size_call.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def summary(found: dict[str, list[dict[str, Any]]], operations: int, side: int) -> dict[str, Any]:
    """Medians of what was measured, and ratios to the plain way."""
    ways = {}
    middle: Callable[[list[dict[str, Any]], str], float] = lambda runs, key: statistics.median(r[key] for r in runs)  # noqa: E731
    for name, runs in found.items():
        if not runs:
            continue
        ways[name] = {
            "what": WAYS[name].what,
            **{key: middle(runs, key) for key in ("seconds", "wall_seconds", "first_call_seconds", "memory_gb")},
            **{
                share: statistics.median(operations / each["seconds"] / each[rate] for each in runs)
                for share, rate in (("share_of_peak", "peak_rate"), ("share_of_best", "best_rate"))
            },
            **{key: middle(runs, key) for key in ("peak_rate", "best_rate")},
            **{key: middle(runs, key) for key in ("rms_error", "largest_error") if all(key in run for run in runs)},
            "runs": runs,
        }
    if PLAIN in ways:
        for way in ways.values():
            way["time_ratio"] = way["seconds"] / ways[PLAIN]["seconds"]
            way["memory_ratio"] = way["memory_gb"] / ways[PLAIN]["memory_gb"]
    return {
        "batch": BATCH, "latent": [side, side], "tokens": NUM_TOKENS, "operations": operations,
        "torch": torch.__version__, "processor": processor_name(), "ways": ways,
    }  # fmt: skip


def processor_name() -> str:
    """What the processor calls itself, and which of the wide instructions it has."""
    able = torch.cpu.get_capabilities()
    flags = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "amx_int8") if able.get(name)]
    return f"{able.get('cpu_name') or platform.machine()} ({', '.join(flags)})"


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = [
        "| way | what | processor s | x plain | share of float32 peak | of best product"
        " | memory GB | x plain | RMS error | largest |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, way in report["ways"].items():
        times = [f"{way['seconds']:.1f}", shown(way, "time_ratio", ".2f")]
        times += [f"{100 * way[share]:.0f} %" for share in ("share_of_peak", "share_of_best")]
        memory = [f"{way['memory_gb']:.1f}", shown(way, "memory_ratio", ".2f")]
        numbers = [*times, *memory, shown(way, "rms_error", ".1e"), shown(way, "largest_error", ".1e")]
        lines.append(f"| {name} | {way['what']} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def shown(way: dict[str, Any], key: str, form: str) -> str:
    """A figure; a dash where the plain way, to which it is relative, was not measured."""
    return format(way[key], form) if key in way else "–"


def plot(report: dict[str, Any], path: Path) -> None:
    """Time against memory, a point a way."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, way in report["ways"].items():
        axes.plot(way["memory_gb"], way["seconds"], "o", label=name, alpha=0.7)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    axes.set(
        xlabel="peak memory, GB", ylabel="processor seconds a call", xlim=(0, 1.1 * axes.get_xlim()[1]), ylim=(0, None)
    )
    axes.set_title(f"One denoiser call, {report['operations'] / 1e12:.2f} TFLOP, on {report['processor']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny networks: tries the program, measures nothing of use")
    parser.add_argument("--side", type=int, help="latent side (default 64; 16 with --tiny)")
    parser.add_argument("--rounds", type=int, default=3, help="calls of each way that are timed (default 3)")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, help="those to measure (default all that this processor is made for)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--shared-weights", action="store_true", help="layers of one shape share a weight: no memory")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    side = chosen.side or (16 if chosen.tiny else 64)
    if chosen.one:
        config, sizes = (TINY, (256,)) if chosen.tiny else (SDXL_UNET, (1024, 2048, 4096))
        print(json.dumps(measure(config, side, chosen.one, chosen.out, sizes, chosen.shared_weights)))
        return
    flags = ["--tiny"] * chosen.tiny + ["--shared-weights"] * chosen.shared_weights
    ways = chosen.ways or worth_measuring()
    report = run(ways, chosen.rounds, side, flags, chosen.out)
    plot(report, chosen.out / "full_size_call.svg")
    print(f"{report['processor']}, {report['operations'] / 1e12:.2f} TFLOP a call\n\n{table(report)}")
    if left_out := ", ".join(name for name in WAYS if name not in ways):
        print(f"\nnot measured: {left_out}")


if __name__ == "__main__":
    main()
