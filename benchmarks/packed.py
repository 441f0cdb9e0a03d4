"""Packed rows against padded ones: the same documents of the shipped data, forward and backward of a trained model.

    python -m benchmarks.packed --run runs/demo --json runs/benchmarks/packed.json

Packed is what training does. Padded is one document a row, as long as the longest of the batch. Their losses, printed
beside, agree: they are the same documents.
"""

import argparse
from itertools import islice
from pathlib import Path

from benchmarks.data_train import mixture_of
from benchmarks.timing import machine, medians, work_clock, write_json
from data.batch import Batch
from data.mixture import Mixture
from data.packing import collate
from data.sources import open_sources
from data.stream import RowStream
from mllm.loss import loss
from mllm.model import UnifiedModel
from mllm.pretrained import load_unified
from train.precision import set_matmul_precision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--context", type=int, default=352)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args()
    set_matmul_precision("auto")
    unified = load_unified(args.run / "pretrain/export")
    configs, padding = mixture_of(args.run), unified.vocabulary.endoftext
    sources = open_sources(configs, unified.vocabulary)
    mixture = Mixture([len(source) for source in sources], [config.weight for config in configs], 0)
    rows = list(islice(RowStream(sources, mixture, args.context, 256, 0, 0.01), args.rows))
    documents = [document for row in rows for document in row]
    shape = unified.model.visual.shape
    packed = collate(rows, args.context, padding, *shape)
    padded = collate([[document] for document in documents], max(map(len, documents)), padding, *shape)
    print(f"{machine()}; {len(documents)} documents of {sum(map(len, documents))} positions")
    figures = measure(unified.model, {"packed": packed, "padded": padded}, sum(map(len, documents)), args.repeats)
    for name, value in figures["packed"].items():
        print(f"{name:<28}{value:14.1f}{figures['padded'][name]:14.1f}")
    print(f"packed / padded throughput: {figures['packed / padded']:.2f}")
    write_json(args.json, figures)


def measure(model: UnifiedModel, batches: dict[str, Batch], num_tokens: int, repeats: int) -> dict:
    """In evaluation mode, where no image is hidden, but with gradients."""
    losses = {}

    def step(name: str) -> None:
        model.zero_grad(set_to_none=True)
        total = loss(model(batches[name]), model.config.loss_weights, 1)
        total.backward()
        losses[name] = total.item()

    seconds = medians({name: lambda name=name: step(name) for name in batches}, repeats, work_clock)
    figures = {
        name: {
            "rows": len(batch.input_ids),
            "positions": batch.input_ids.numel(),
            "tokens per second": num_tokens / seconds[name],
            "loss": losses[name],
        }
        for name, batch in batches.items()
    }
    return {**figures, "packed / padded": seconds["padded"] / seconds["packed"]}


if __name__ == "__main__":
    main()
