"""Visual embedding (arXiv 2503.14324, section 3.3, Fig. 3c): dual codes -> one LLM input vector per patch.

The features of the pixel and of the semantic branch, which are summed code vectors or what the tokenizer's projections
make of them, are concatenated along the embedding dimension and go through a two-layer GELU projector.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer import BRANCHES, DualCodes


class VisualEmbedding(nn.Module):
    """Deviation: with a `grid`, a learned vector per row and per column of the image is added.

    The paper leaves positions to the LLM's rotary embedding, in which a small model trained from nothing has to learn
    first that a patch lies below the one `width` positions earlier.
    """

    def __init__(self, visual_input: str, width: int, hidden_size: int, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.branches = BRANCHES if visual_input == "both" else (visual_input,)
        self.up = nn.Linear(len(self.branches) * width, hidden_size)
        self.down = nn.Linear(hidden_size, hidden_size)
        if grid is not None:
            self.rows = nn.Parameter(0.02 * torch.randn(grid[0], 1, hidden_size))
            self.columns = nn.Parameter(0.02 * torch.randn(1, grid[1], hidden_size))
        self.has_positions = grid is not None

    def forward(self, features: DualCodes, patches: Tensor | None = None) -> Tensor:
        """Features float[B, n, width] of each branch -> float[B, n, E]; of all patches, or of those of the numbers
        `patches` int64[n].
        """
        both = torch.cat([getattr(features, branch) for branch in self.branches], dim=-1)
        embeddings = self.down(F.gelu(self.up(both.to(self.up.weight.dtype))))
        if not self.has_positions:
            return embeddings
        positions = (self.rows + self.columns).flatten(0, 1)
        return embeddings + (positions if patches is None else positions[patches])
