"""The D codes of one position, depth after depth, by several heads at once (arXiv 2503.14324, section 3.3, Eq. 5).

The heads have one structure and differ in their weights. Stacked, each product of a step is one batched product for
all of them: half as many steps for two heads. Classifiers, the largest part, are read where they are.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.depth_transformer import DepthTransformer
from heads.sampling import DrawSettings, draw, guide


class DepthDecoder:
    """G heads with a cache over depth: `start` a position, then `step` D - 1 times."""

    def __init__(self, heads: Sequence[DepthTransformer]) -> None:
        first = heads[0]
        self.config, self.depth = first.config, first.depth
        self.classifiers = [head.classifiers for head in heads]
        self.weights = {
            name: torch.stack([head.get_parameter(name).detach() for head in heads])
            for name, _ in first.named_parameters()
            if not name.startswith(("classifiers.", "code_table."))
        }
        self.length = 0

    def start(self, hidden_states: Tensor) -> Tensor:
        """Opens a position: float[M, E] -> the states of depth 1 float[G, M, W]."""
        num_heads, num_rows = len(self.classifiers), len(hidden_states)
        shape = (num_heads * num_rows, self.config.num_heads, self.depth, self.config.width // self.config.num_heads)
        self.keys, self.values = (
            [hidden_states.new_empty(shape) for _ in range(self.config.num_layers)] for _ in range(2)
        )
        self.length = 0
        return self._advance(self._linear("hidden_projection", hidden_states.expand(num_heads, -1, -1)))

    def step(self, code_sums: Tensor) -> Tensor:
        """The next depth's states float[G, M, W], from the summed vectors of all codes so far float[G, M, C or W]."""
        code_sums = code_sums.to(self.weights["hidden_projection.weight"].dtype)
        is_projected = self.config.code_embedding == "codebook"
        return self._advance(self._linear("code_projection", code_sums) if is_projected else code_sums)

    def logits(self, states: Tensor, head: int) -> Tensor:
        """One head's logits at the depth that was entered last: float[G, M, W] -> float[M, K]."""
        return self.classifiers[head].logits(states[head], self.length - 1)

    def _advance(self, x: Tensor) -> Tensor:
        x = x + self.weights["depth_positions"][:, self.length].unsqueeze(1)
        for layer in range(self.config.num_layers):
            block = f"blocks.{layer}."
            x = x + self._attention(block, layer, self._norm(f"{block}attention_norm", x))
            up = self._linear(f"{block}up", self._norm(f"{block}mlp_norm", x))
            x = x + self._linear(f"{block}down", F.gelu(up))
        self.length += 1
        return self._norm("norm", x)

    def _attention(self, block: str, layer: int, x: Tensor) -> Tensor:
        keys, values = self.keys[layer], self.values[layer]
        query, key, value = self._linear(f"{block}qkv", x).view(len(keys), 3, self.config.num_heads, -1).unbind(1)
        keys[:, :, self.length], values[:, :, self.length] = key, value
        seen = slice(self.length + 1)
        attended = F.scaled_dot_product_attention(query.unsqueeze(2), keys[:, :, seen], values[:, :, seen])
        return self._linear(f"{block}out", attended.reshape(x.shape))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        weight = self.weights[f"{name}.weight"]  # float[G, out, in], or [G, D, out, in] where each depth has its own
        return torch.bmm(x, (weight if weight.dim() == 3 else weight[:, self.length]).mT)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=1e-6) * self.weights[f"{name}.weight"].unsqueeze(1)


def sample_codes(
    decoder: DepthDecoder,
    hidden_states: Tensor,
    vectors_at: Callable[[Tensor, int], Tensor],
    uniform: Tensor,
    settings: Sequence[Sequence[DrawSettings]],
    guidance: Tensor,
) -> Tensor:
    """All codes of one position.

    hidden_states: float[B, E], or float[2B, E] with the unconditional rows in the second half; vectors_at: (codes
    int64[G, B], depth) -> their vectors float[G, B, C]; uniform: float64[B, G, D]; settings: of each head and depth;
    guidance: float32[G], not read without unconditional rows. Returns int64[G, B, D].
    """
    num_images, num_heads, _ = uniform.shape
    copies = len(hidden_states) // num_images
    states = decoder.start(hidden_states)
    codes: list[Tensor] = []
    code_sums = torch.zeros((), device=hidden_states.device)
    for depth in range(decoder.depth):
        if depth:
            code_sums = code_sums + vectors_at(codes[-1], depth - 1)
            states = decoder.step(code_sums.repeat(1, copies, 1))
        column = []
        for head in range(num_heads):
            logits = decoder.logits(states, head)
            guided = guide(logits, guidance[head]) if copies == 2 else logits
            column.append(draw(guided, uniform[:, head, depth], settings[head][depth]))
        codes.append(torch.stack(column))
    return torch.stack(codes, dim=-1)
