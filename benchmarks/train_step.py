"""A training step of the unified model against the bare LLM's forward and backward on the same tokens, part by part.

    python -m benchmarks.train_step --scale 8 --json runs/benchmarks/train_step.json

`--scale 8` divides every width, the vocabulary and the codebooks of the 3B model by 8, so that the shares of its parts
stay. Every image is to be drawn, the worst case for the heads. The optimizer is in none of it.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.timing import machine, medians, work_clock, write_json
from benchmarks.unified_sizes import Sizes, build, drawings, flops
from data.batch import Batch
from heads.cross_entropy import IGNORE
from mllm.loss import loss
from mllm.model import UnifiedModel
from tokenizer import DualCodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=int, default=8, help="1: Qwen-2.5-3B itself")
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--grid", type=int, nargs=2, default=(9, 10))
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args()
    sizes = Sizes(args.scale, args.layers, args.context, tuple(args.grid))
    is_cuda = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if is_cuda else ("cpu", torch.float32)
    print(f"{machine()}; {sizes}, {args.rows} row(s), {dtype}")
    figures = measure(build(sizes, device, dtype), drawings(sizes, args.rows, device), args.repeats)
    show(figures)
    write_json(args.json, figures)


def measure(model: UnifiedModel, batch: Batch, repeats: int) -> dict:
    seconds = medians(contenders(model.train(), batch), repeats, work_clock)
    counted = flops(model, batch)
    parts = {name: value for name, value in seconds.items() if name not in ("bare LLM", "ours")}
    return {
        "positions": batch.input_ids.numel(),
        "visual targets": int(batch.target_mask.sum()),
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()},
        "flops": counted,
        "seconds": seconds,
        "ours / bare LLM": seconds["ours"] / seconds["bare LLM"],
        "share of ours": {name: value / seconds["ours"] for name, value in parts.items()},
    }


def contenders(model: UnifiedModel, batch: Batch) -> dict[str, Callable[[], None]]:
    """Forward and backward of everything, and of each part alone on inputs of the right shape."""
    codes = DualCodes(batch.pixel, batch.semantic)
    with torch.no_grad():
        embeddings = model.embed(batch.input_ids, batch.image_mask, codes)
        hidden_states = model.decode_packed(embeddings, batch.position_ids)
        rows = hidden_states[:, :-1][batch.target_mask[:, 1:]]
        is_label = batch.labels != IGNORE
        text_rows = hidden_states[:, :-1][is_label[:, 1:]]
        own = {name: getattr(batch, name).flatten(0, 1) for name in codes._fields}
        vectors = {name: model.code_vectors(name, values) for name, values in own.items()}
        heads = {name: getattr(model, f"{name}_head") for name in own}
        states = {name: heads[name](rows, vectors[name]) for name in own}

    def bare() -> Tensor:
        ids = batch.input_ids
        return model.llm(input_ids=ids, position_ids=batch.position_ids, labels=ids, use_cache=False).loss

    def ours() -> Tensor:
        return loss(model(batch), model.config.loss_weights, batch.num_targets)

    def decoder() -> Tensor:
        return model.decode_packed(leaf(embeddings), batch.position_ids).sum()

    def visual_loss() -> Tensor:
        losses = [heads[name].classifiers(leaf(states[name]), values).loss.sum() for name, values in own.items()]
        return torch.stack(losses).sum()

    def text_loss() -> Tensor:
        return model.llm.get_output_embeddings()(leaf(text_rows), batch.labels[is_label]).loss.sum()

    parts = {
        "bare LLM": bare,
        "ours": ours,
        "LLM without logits": decoder,
        "embedding": lambda: model.embed(batch.input_ids, batch.image_mask, codes).sum(),
        "heads": lambda: torch.stack([heads[name](leaf(rows), vectors[name]).sum() for name in own]).sum(),
        "visual loss": visual_loss,
        "text loss": text_loss,
    }
    return {name: lambda part=part: step(model, part) for name, part in parts.items()}


def leaf(tensor: Tensor) -> Tensor:
    """An input that wants a gradient, as it does inside the whole."""
    return tensor.detach().requires_grad_()


def step(model: UnifiedModel, part: Callable[[], Tensor]) -> None:
    model.zero_grad(set_to_none=True)
    part().backward()


def show(figures: dict) -> None:
    for name, value in figures["seconds"].items():
        share = figures["share of ours"].get(name)
        print(f"{name:<24}{value:9.3f} s" + ("" if share is None else f"{share:9.1%} of ours"))
    print(f"ours / bare LLM: {figures['ours / bare LLM']:.2f} (target: at most 1.5)")
    counted = figures["flops"]
    print("of the products: " + ", ".join(f"{k} {v / sum(counted.values()):.1%}" for k, v in counted.items()))


if __name__ == "__main__":
    main()
