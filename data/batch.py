"""One micro-batch of packed documents: the only thing that passes from the data to the unified model (Sec. 3.3).

Which visual positions are generated is data (`target_mask`, set by the templates of data/documents.py): the model never
guesses it from token positions. The hidden state at position i − 1 predicts what stands at i, text or visual.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Batch:
    """Packed sequences and the codes of their images.

    Row-major order of the True positions of `image_mask` is the order of the images, N positions each. Labels are not
    shifted: `labels[s, i] == input_ids[s, i]` where the text at i is supervised, else −100. The first position of a
    document is never a target. Position ids restart at 0 at each document; padding is a document of its own.
    """

    pixel: Tensor  # int64[B, N, D], B may be 0
    semantic: Tensor  # int64[B, N, D]
    input_ids: Tensor  # int64[S, T], one placeholder id per visual position
    position_ids: Tensor  # int64[S, T]
    labels: Tensor  # int64[S, T]
    image_mask: Tensor  # bool[S, T], visual positions
    target_mask: Tensor  # bool[S, T], visual positions whose codes are predicted, a subset of image_mask
    keys: list[str]  # of the documents, in row-major order

    @property
    def num_targets(self) -> int:
        """Positions that are predicted: labelled text and generated visual positions."""
        return int((self.labels != -100).sum() + self.target_mask.sum())

    def to(self, device: torch.device | str) -> "Batch":
        tensors = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "keys"}
        return type(self)(**tensors, keys=self.keys)
