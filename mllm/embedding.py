"""Visual embedding (arXiv 2503.14324, section 3.3, Fig. 3c): dual codes -> one LLM input vector per patch.

The summed code vectors of the pixel and of the semantic branch are concatenated along the embedding dimension and go
through a two-layer GELU projector.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer import DualCodes


class VisualEmbedding(nn.Module):
    def __init__(self, visual_input: str, code_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.branches = ("pixel", "semantic") if visual_input == "both" else (visual_input,)
        self.up = nn.Linear(len(self.branches) * code_dim, hidden_size)
        self.down = nn.Linear(hidden_size, hidden_size)

    def forward(self, code_sums: DualCodes) -> Tensor:
        """Summed code vectors float32[B, N, C] of each branch -> float[B, N, E]."""
        features = torch.cat([getattr(code_sums, branch) for branch in self.branches], dim=-1)
        return self.down(F.gelu(self.up(features.to(self.up.weight.dtype))))
