"""Depth transformer (arXiv 2503.14324, section 3.3, Eq. 5): one LLM hidden state -> the D codes of one codebook.

    I_p1 = h_p        I_pd = sum_{d' < d} e(r_pd')   for d > 1

Each visual position is its own sequence of D steps, causal over depth; e is the tokenizer's frozen codebook. Positions
are the batch dimension, so every matrix product is one large M*D-row product. Sampling, which goes depth by depth, is
in heads/depth_decoding.py.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from heads.code_table import CodeTable
from heads.config import DepthHeadConfig
from heads.cross_entropy import DepthClassifiers
from heads.linear_per_depth import LinearPerDepth


class DepthBlock(nn.Module):
    """Pre-norm attention over depth and a GELU perceptron, without biases."""

    def __init__(self, config: DepthHeadConfig, depth: int) -> None:
        super().__init__()
        linear = partial(LinearPerDepth, depth) if config.mlp_per_depth else partial(nn.Linear, bias=False)
        self.num_heads = config.num_heads
        self.attention_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.mlp_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.up = linear(config.width, config.mlp_width)
        self.down = linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """float[M, D, W] -> float[M, D, W]"""
        num_rows, num_steps, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(num_rows, num_steps, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each float[M, heads, D, head_dim]
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(num_rows, num_steps, width))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class DepthTransformer(nn.Module):
    """One head: the transformer over depth and, as `classifiers`, D separate classifiers over K codes."""

    def __init__(
        self, config: DepthHeadConfig, input_width: int, code_dim: int, depth: int, codebook_size: int
    ) -> None:
        super().__init__()
        self.config, self.depth, self.gradient_checkpointing = config, depth, config.gradient_checkpointing
        self.hidden_projection = nn.Linear(input_width, config.width, bias=False)
        self.code_projection: nn.Module = nn.Linear(code_dim, config.width, bias=False)
        self.code_table: CodeTable | None = None
        if config.code_embedding != "codebook":
            num_tables = max(depth - 1, 1) if config.code_embedding == "learned_per_depth" else 1
            self.code_table = CodeTable(num_tables, codebook_size, config.width)
            self.code_projection = nn.Identity()  # the table is as wide as the head
        self.depth_positions = nn.Parameter(0.02 * torch.randn(depth, config.width))
        self.blocks = nn.ModuleList(DepthBlock(config, depth) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.classifiers = DepthClassifiers(depth, codebook_size, config.width)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """GPT-2's (Radford et al. 2019, section 2.3): deviation 0.02, and what is added to the residual stream divided
        by the root of how often something is added."""
        for parameter in self.parameters():
            if parameter.dim() >= 2:
                nn.init.normal_(parameter, std=0.02)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith((".out.weight", ".down.weight")):
                parameter.div_((2 * len(self.blocks)) ** 0.5)

    def forward(self, hidden_states: Tensor, code_embeddings: Tensor) -> Tensor:
        """Teacher-forced states of all depths.

        hidden_states: float[M, E]; code_embeddings: float[M, D, C], e(code_d) of the codes to predict (the last depth's
        is never read), of `code_table` float[M, D, W] where there is one. Returns float[M, D, W]; the state at depth d
        has seen h and the codes before d only.
        """
        prefixes = code_embeddings[:, : self.depth - 1].cumsum(dim=1).to(hidden_states.dtype)
        first = self.hidden_projection(hidden_states).unsqueeze(1)
        x = torch.cat([first, self.code_projection(prefixes)], dim=1) + self.depth_positions
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.gradient_checkpointing else block(x)
        return self.norm(x)
