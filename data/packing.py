"""Packing documents into rows of exactly T positions, and rows into a `Batch`.

A row takes the oldest waiting document and, among all subsets of the window, the one that fills it best (subset sum
over a bit set: window × T bit operations). Documents are never cut. Position ids restart at each document and at the
padding, which is how attention is told not to cross.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from data.batch import Batch
from data.documents import Document, ImageRef


def best_fit(lengths: Sequence[int], capacity: int) -> list[int]:
    """The indices of the fullest row ≤ capacity that holds the first item; among equals, of the earlier items."""
    sums_below = (1 << capacity + 1) - 1
    reachable = [1 << lengths[0]]  # bit s of entry i: some subset of items 0…i, with item 0, has the sum s
    for length in lengths[1:]:
        if reachable[-1] >> capacity:
            break
        reachable.append((reachable[-1] | reachable[-1] << length) & sums_below)
    total = reachable[-1].bit_length() - 1
    chosen = []
    for item in range(len(reachable) - 1, 0, -1):
        if not reachable[item - 1] >> total & 1:
            chosen.append(item)
            total -= lengths[item]
    return [0, *reversed(chosen)]


def collate(
    rows: Sequence[Sequence[Document]], context_length: int, padding_id: int, num_patches: int, depth: int
) -> Batch:
    """Rows of documents, [] for a row of padding alone, to a batch; this is where codes are read.

    A picture file may turn out to be broken only here, in a row that is packed already: nothing of its document is
    learned then.
    """
    shape = (len(rows), context_length)
    input_ids, labels = torch.full(shape, padding_id), torch.full(shape, -100)
    image_mask, target_mask = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    position_ids = torch.zeros(shape, dtype=torch.int64)
    pairs = iter(_read_codes([image for row in rows for document in row for image in document.images]))
    codes, keys = [], []
    nothing = np.zeros((2, num_patches, depth), dtype=np.int64)
    for row, documents in enumerate(rows):
        start = 0
        for document in documents:
            span = slice(start, start := start + len(document))
            own = [next(pairs) for _ in document.images]
            input_ids[row, span] = document.input_ids
            image_mask[row, span] = document.image_mask
            position_ids[row, span] = torch.arange(len(document))
            keys.append(document.key)
            codes += [nothing if pair is None else pair for pair in own]
            if all(pair is not None for pair in own):
                labels[row, span] = document.labels
                target_mask[row, span] = document.target_mask
        position_ids[row, start:] = torch.arange(context_length - start)
    stacked = np.array(codes, dtype=np.int64).reshape(len(codes), 2, num_patches, depth)
    pixel, semantic = torch.from_numpy(stacked).unbind(1)
    return Batch(
        pixel=pixel.contiguous(),
        semantic=semantic.contiguous(),
        input_ids=input_ids,
        position_ids=position_ids,
        labels=labels,
        image_mask=image_mask,
        target_mask=target_mask,
        keys=keys,
    )


def _read_codes(images: Sequence[ImageRef]) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """The codes of the images in order, asked of each store at once: one that tokenizes pictures wants batches."""
    found: dict[tuple[int, Any], tuple[np.ndarray, np.ndarray] | None] = {}
    for store in {id(image.store): image.store for image in images}.values():
        indices = list(dict.fromkeys(image.index for image in images if image.store is store))
        found |= {(id(store), i): pair for i, pair in zip(indices, store.codes_of(indices), strict=True)}
    return [found[id(image.store), image.index] for image in images]
