"""One micro-batch of packed documents: the only thing that passes from the data to the unified model (Sec. 3.3).

Which visual positions are generated is data (`target_mask`, set by the templates of data/documents.py): the model never
guesses it from token positions. The hidden state at position i − 1 predicts what stands at i, text or visual.
"""

from collections.abc import Callable
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
        """The batch on a device; from pinned memory the copy runs beside what the device is doing."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()))

    def pin_memory(self) -> "Batch":
        return self._map(torch.Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        tensors = {f.name: function(getattr(self, f.name)) for f in fields(self) if f.name != "keys"}
        return type(self)(**tensors, keys=self.keys)
