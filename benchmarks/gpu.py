"""Everything about training speed that needs a GPU, in one run of at most eight minutes.

    python -m benchmarks.gpu --json runs/benchmarks/gpu.json          (--tiny: the same code in seconds on a CPU)

The card's own bf16 matmul rate; the visual loss at full size; a step of Qwen-2.5-3B sizes with both heads at 4096
positions with gradient checkpointing, for more and more rows: tokens/s, MFU against the measured rate, peak memory; and
that step against the bare LLM, part by part. Plain torch without DeepSpeed: weights, gradients and AdamW states are
bf16, so the optimizer needs less memory and time than with fp32 master weights. The file is written after every part.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import train_step, visual_loss
from benchmarks.timing import machine, medians, write_json
from benchmarks.unified_sizes import Sizes, build, drawings, flops
from data.batch import Batch
from mllm.loss import loss
from mllm.model import UnifiedModel
from train.flops import Work
from train.memory import activations, logits

FULL = Sizes(gradient_checkpointing=True)
TINY = Sizes(scale=64, num_layers=2, context_length=64, grid=(2, 2), gradient_checkpointing=True)
TINY_LOSS = visual_loss.LossSizes(rows=600, depth=1, codebook_size=16384, width=8)  # the least that shows in memory


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small sizes, on any machine")
    parser.add_argument("--minutes", type=float, default=8.0, help="no part begins after three quarters of them")
    parser.add_argument("--json", default="runs/benchmarks/gpu.json")
    args = parser.parse_args(arguments)
    if not args.tiny and not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu needs a CUDA device: --tiny runs the same code anywhere")
    device, dtype = ("cpu", torch.float32) if args.tiny else ("cuda", torch.bfloat16)
    sizes, repeats = (TINY, 1) if args.tiny else (FULL, 3)
    deadline = time.monotonic() + 60 * args.minutes * 0.75
    figures: dict[str, Any] = {"sizes": asdict(sizes), "dtype": str(dtype)}

    def measure(name: str, part: Callable[[], Any]) -> None:
        try:
            figures[name] = "left out: no time" if time.monotonic() > deadline else part()
        except RuntimeError as error:  # most likely out of memory: the other parts are still worth having
            figures[name] = f"failed: {str(error).splitlines()[0]}"
        print(f"{name}: {figures[name]}", flush=True)
        write_json(args.json, figures)

    print(machine())
    measure("matmul flops per second", lambda: matmul_rate(256 if args.tiny else 8192, device, dtype))
    loss_sizes = TINY_LOSS if args.tiny else visual_loss.LossSizes()
    measure("visual loss", lambda: visual_loss.measure(loss_sizes, device, dtype, repeats=repeats))
    model = build(sizes, device, dtype).train()
    measure("step / bare LLM, 1 row", lambda: train_step.measure(model, drawings(sizes, 1, device), repeats))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    rate = figures["matmul flops per second"]
    for rows in (1, 2, 4, 8):  # until memory or time ends
        measure(f"training, {rows} row(s)", lambda rows=rows: throughput(model, optimizer, sizes, rows, device, rate))
    return figures


def matmul_rate(size: int, device: str, dtype: torch.dtype) -> float:
    """Of square products: what this card reaches, not what its data sheet says."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    products = 10
    seconds = medians({"matmul": lambda: [torch.matmul(a, b) for _ in range(products)]}, repeats=5)["matmul"]
    return products * 2 * size**3 / seconds


def throughput(
    model: UnifiedModel, optimizer: torch.optim.Optimizer, sizes: Sizes, rows: int, device: str, rate: float
) -> dict[str, Any]:
    """Whole steps, optimizer included."""
    batch = drawings(sizes, rows, device)
    is_cuda = device == "cuda"

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(model(batch), model.config.loss_weights, batch.num_targets).backward()
        optimizer.step()

    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = medians({"step": step}, repeats=3)["step"]
    counted = flops(model, batch)
    return {
        "seconds per step": seconds,
        "tokens per second": batch.input_ids.numel() / seconds,
        "mfu": sum(counted.values()) / seconds / rate,
        "flops": counted,
        "estimated gigabytes": estimated_bytes(model, batch) / 1e9,
        "peak gigabytes": torch.cuda.max_memory_allocated() / 1e9 if is_cuda else None,
    }


def estimated_bytes(model: UnifiedModel, batch: Batch) -> float:
    """At the end of the forward pass, as train/memory.py counts it, beside states all of the weights' precision."""
    dtype, work = model.llm.dtype, Work.of(batch)
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    states = 4 * sum(p.numel() * p.itemsize for p in model.parameters())  # weights, gradients, two moments
    return states + activations(model, work, precision, checkpointing=True) + logits(model, work, precision)


if __name__ == "__main__":
    main()
