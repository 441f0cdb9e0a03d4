"""`dualtoken pretokenize --verify`: do the stored codes still say what the pictures show?

Some rows of a store are decoded to pictures and shown under their originals, which are read again from where the store
says they came from, and tokenized again: codes that were written to the wrong row, or made from other pixels, differ.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.code_counts import COUNTS, read_totals
from data.codes import PROVENANCE, CodeStore
from data.images import ImageTransform, to_pil
from data.shards import find_samples
from eval.sheets import contact_sheet
from tokenizer import DualTokenizer

PICTURE = "verify.png"
COLUMNS = 8


class Row(NamedTuple):
    caption: str
    original: Tensor  # float32[3, h, w]
    codes: Tensor  # int64[2, N, D], as stored


@torch.no_grad()
def verify(folder: Path, tokenizer: DualTokenizer, transform: ImageTransform, num: int) -> str:
    """Writes `folder/verify.png` of `num` evenly spaced rows; one line about what was found."""
    device = next(tokenizer.parameters()).device
    rows = list(_sample(folder, transform, num))
    if not rows:
        raise ValueError(f"no picture of {str(folder)!r} is found where its store says it came from: was it moved?")
    originals = torch.stack([row.original for row in rows]).to(device)
    stored = torch.stack([row.codes for row in rows], dim=1).to(device)  # [2, B, N, D]
    again = torch.stack(list(tokenizer.encode(originals)))
    share = (again == stored).float().mean().item()
    _sheet(rows, tokenizer.decode(stored[0])).save(folder / PICTURE)
    return f"{folder / PICTURE}: {len(rows)} pictures over what their codes hold; {share:.2%} of their codes come again"


def _sample(folder: Path, transform: ImageTransform, num: int) -> Iterator[Row]:
    found = (path.parent for path in sorted(folder.glob(f"*/{PROVENANCE}")))
    parts = [CodeStore.open(part) for part in found if read_totals(part / COUNTS)[0]]  # one may be without rows
    ends = np.cumsum([len(part) for part in parts])
    chosen: dict[int, list[int]] = defaultdict(list)
    for row in sorted({i * int(ends[-1]) // num for i in range(num)}):
        number = int(np.searchsorted(ends, row, side="right"))
        chosen[number].append(row - int(ends[number]) + len(parts[number]))
    for number, indices in chosen.items():
        part = parts[number]
        index_of = {part.key(index): index for index in indices}
        for sample in find_samples(part.provenance["source"], set(index_of)):
            index = index_of.pop(sample.key, None)
            if index is not None:
                codes = torch.from_numpy(np.stack(part.codes(index)).astype(np.int64))
                yield Row((part.captions(index) or [""])[0], transform(sample.image), codes)
            if not index_of:
                break


def _sheet(rows: list[Row], decoded: Tensor) -> Image.Image:
    """Originals over their reconstructions, a caption below each pair."""
    blank = to_pil(torch.ones_like(rows[0].original))
    images, texts = [], []
    for start in range(0, len(rows), COLUMNS):
        group = rows[start : start + COLUMNS]
        missing = COLUMNS - len(group)
        images += [to_pil(row.original) for row in group] + [blank] * missing
        images += [to_pil(picture) for picture in decoded[start : start + COLUMNS]] + [blank] * missing
        texts += [""] * COLUMNS + [row.caption for row in group] + [""] * missing
    return contact_sheet(images, COLUMNS, texts, scale=max(1, 128 // blank.width))
