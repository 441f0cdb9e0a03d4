"""The loss of the 16 classifiers, forward and backward: ours in chunks against plain logits; memory and time.

    python -m benchmarks.visual_loss --json runs/benchmarks/visual_loss.json

The defaults are one image at full size: 729 positions × 8 depths × 2 codebooks × 16,384 codes. Memory is counted twice:
with frozen classifiers, which leaves what the loss itself needs, and with their gradients, which any loss must make.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.memory import peak_memory
from benchmarks.timing import machine, medians, work_clock, write_json
from heads.cross_entropy import chunked_cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LossSizes:
    rows: int = 729
    depth: int = 8
    codebook_size: int = 16384
    width: int = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in asdict(LossSizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args()
    sizes = LossSizes(args.rows, args.depth, args.codebook_size, args.width)
    is_cuda = torch.cuda.is_available()
    print(f"{machine()}; {sizes}")
    figures = measure(sizes, "cuda" if is_cuda else "cpu", torch.bfloat16 if is_cuda else torch.float32, args.repeats)
    show(figures)
    write_json(args.json, figures)


def ours(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return chunked_cross_entropy(states, weight, targets).loss.sum()


def plain(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = torch.einsum("mdw,dkw->mdk", states, weight).flatten(0, 1)
    (logits.argmax(1) == targets.flatten()).sum()
    return F.cross_entropy(logits.float(), targets.flatten(), reduction="sum")


LOSSES: dict[str, Loss] = {"ours": ours, "plain": plain}


def measure(sizes: LossSizes, device: str, dtype: torch.dtype, repeats: int) -> dict:
    """Both codebooks, as in a step: two losses, then one backward pass."""
    torch.manual_seed(0)
    heads = []
    for _ in range(2):
        states = torch.randn(sizes.rows, sizes.depth, sizes.width, device=device).to(dtype).requires_grad_()
        weight = 0.02 * torch.randn(sizes.depth, sizes.codebook_size, sizes.width, device=device)
        targets = torch.randint(sizes.codebook_size, (sizes.rows, sizes.depth), device=device)
        heads.append((states, weight.to(dtype).requires_grad_(), targets))

    values = {}

    def clear() -> None:
        for states, weight, _ in heads:
            states.grad = weight.grad = None

    def run(name: str) -> None:
        clear()
        total = torch.stack([LOSSES[name](*head) for head in heads]).sum()
        total.backward()
        values[name] = total.item()

    seconds = medians({name: lambda name=name: run(name) for name in LOSSES}, repeats, work_clock)
    ratios, megabytes = {"time": seconds["ours"] / seconds["plain"]}, {}
    for part, with_gradients in (("memory, loss alone", False), ("memory, with the classifiers' gradients", True)):
        for _, weight, _ in heads:
            weight.requires_grad_(with_gradients)
        for name in LOSSES:
            clear()
            megabytes[f"{name}, {part}"] = peak_memory(lambda name=name: run(name), device == "cuda") / 1e6
        ratios[part] = megabytes[f"ours, {part}"] / megabytes[f"plain, {part}"]
    return {
        "sizes": asdict(sizes), "losses": values, "seconds": seconds, "megabytes": megabytes, "ours / plain": ratios,
    }  # fmt: skip


def show(figures: dict) -> None:
    for name in ("losses", "seconds", "megabytes", "ours / plain"):
        print(f"{name}:")
        for key, value in figures[name].items():
            print(f"  {key:<48}{value:12.3f}")


if __name__ == "__main__":
    main()
