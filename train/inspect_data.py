"""`dualtoken inspect-data`: what the model will see, before it sees it.

The rows are those of the loader, from the first of a run on, with the stage's own vocabulary; nothing is trained.
"""

import math
import os
import sys
from collections.abc import Iterator
from itertools import accumulate, islice
from pathlib import Path

import torch
from PIL import Image

from data.batch import Batch
from data.images import to_pil
from data.loader import Loader
from data.vocabulary import Vocabulary
from tokenizer import DualTokenizer
from train.build_mllm import training_texts
from train.inspect_page import rows_as_page
from train.inspect_rows import IGNORE, RowView, view_rows
from train.inspect_sheet import rows_as_sheet
from train.inspect_text import rows_as_text
from train.picture_encoder import TokenizerEncoder
from train.train_mllm import TrainMllmConfig

NUM_ROWS_COUNTED = 400  # of the stream, for the figures; only those shown where pictures would have to be tokenized


def inspect_data(config: TrainMllmConfig, num_rows: int, out: str | Path) -> list[Path]:
    """Prints `num_rows` rows, writes them as a page and as a picture, and returns the two files."""
    if num_rows < 1:
        raise ValueError(f"--rows {num_rows}: at least one row is needed")
    vocabulary, tokenizer = open_vocabulary_of(config), open_tokenizer_of(config)
    encoder = None if tokenizer is None else TokenizerEncoder(tokenizer)
    loader = Loader(config.data, vocabulary, tokenizer.tokenizer_id if tokenizer else None, encoder=encoder)
    num_counted = num_rows if any(s.images for s in config.data.sources) else max(NUM_ROWS_COUNTED, num_rows)
    batches = [
        batch
        for step in islice(loader, math.ceil(num_counted / config.data.rows_per_batch))
        for batch in step.micro_batches
    ]
    shown = batches[: math.ceil(num_rows / config.data.rows_per_batch)]
    firsts = accumulate((len(batch.pixel) for batch in shown), initial=0)
    rows = [row for batch, first in zip(shown, firsts, strict=False) for row in view_rows(batch, vocabulary, first)]
    rows, statistics = rows[:num_rows], figures(batches, loader)
    in_colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(rows_as_text(rows, in_colour))
    print("\n".join(f"{name:<44}{value:>12}" for name, value in statistics.items()))
    pictures = None if tokenizer is None else decode(shown, tokenizer)
    if pictures is None:
        print("the images are not decoded: the tokenizer's folder that the config names is not there", file=sys.stderr)
    return write(Path(out), f"{config.out}: the first rows", rows, pictures, statistics)


def open_vocabulary_of(config: TrainMllmConfig) -> Vocabulary:
    """That of `init`, of the config, of the run if it has begun; or else trained as the run will train it."""
    if config.init is not None:
        return Vocabulary.from_pretrained(Path(config.init) / "vocabulary")
    own = Path(config.out) / "vocabulary"
    if config.vocabulary is not None or own.is_dir():
        return Vocabulary.from_pretrained(config.vocabulary or own)
    return Vocabulary.train(training_texts(config.data.sources), config.vocabulary_size)


def open_tokenizer_of(config: TrainMllmConfig) -> DualTokenizer | None:
    folder = Path(config.init) / "tokenizer" if config.init is not None else Path(config.tokenizer or "")
    return DualTokenizer.from_pretrained(str(folder)).freeze() if folder.is_dir() else None


def figures(batches: list[Batch], loader: Loader) -> dict[str, str]:
    """What the rows hold, and how often each source came."""
    positions = sum(batch.input_ids.numel() for batch in batches)
    metrics = loader.metrics()
    filled = round(metrics["fill"] * positions)
    drawn = sum(int(batch.target_mask.sum()) for batch in batches)
    seen = sum(int(batch.image_mask.sum()) for batch in batches) - drawn
    learned = sum(int((batch.labels != IGNORE).sum()) for batch in batches)
    parts = {"text learned": learned, "text read": filled - learned - drawn - seen, "images drawn": drawn}
    parts |= {"images seen": seen}
    weight = sum(source.weight for source in loader.config.sources)
    weights = [f"weight {source.weight / weight:.2%}" for source in loader.config.sources]
    shares = {name.removeprefix("share."): share for name, share in metrics.items() if name.startswith("share.")}
    return {
        "rows counted": str(sum(len(batch.input_ids) for batch in batches)),
        "documents": str(sum(len(batch.keys) for batch in batches)),
        "images": str(sum(len(batch.pixel) for batch in batches)),
        "positions of an image": str(loader.shape[0]),
        "fill": f"{metrics['fill']:.2%}",
        **{f"of the filled: {name}": f"{number / max(filled, 1):.2%}" for name, number in parts.items()},
        **{
            f"documents of {name} ({of})": f"{share:.2%}"
            for (name, share), of in zip(shares.items(), weights, strict=True)
        },
        "unusable documents": f"{metrics['num_bad']:.0f}",
        "documents longer than a row": f"{metrics['num_overlong']:.0f}",
    }


@torch.no_grad()
def decode(shown: list[Batch], tokenizer: DualTokenizer) -> list[Image.Image]:
    """The images of the batches, in order, from their pixel codes."""

    def decoded() -> Iterator[Image.Image]:
        for batch in shown:
            for part in batch.pixel.split(64):
                yield from (to_pil(image) for image in tokenizer.decode(part))

    return list(decoded())


def write(
    out: Path, title: str, rows: list[RowView], pictures: list[Image.Image] | None, statistics: dict[str, str]
) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    page, sheet = out / "rows.html", out / "rows.png"
    page.write_text(rows_as_page(title, rows, pictures, statistics))
    rows_as_sheet(rows, pictures).save(sheet)
    return [page, sheet]
