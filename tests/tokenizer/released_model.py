"""The released tokenizer once more, in plain torch and in the authors' key layout, to compare with.

Written from the description of its mathematics, attention by hand; nothing here is imported from the package.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipModel


class Attention(nn.Module):
    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        self.widths, width = (in_width, out_width), max(in_width, out_width)
        self.num_heads = width // min(in_width, out_width)
        self.qkv = nn.Linear(in_width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("zero_k_bias", torch.zeros(width))
        self.proj = nn.Linear(out_width, out_width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.qkv(x) + torch.cat([self.q_bias, self.zero_k_bias, self.v_bias])).chunk(3, -1)
        heads = []
        for q_h, k_h, v_h in zip(*(t.chunk(self.num_heads, -1) for t in (q, k, v)), strict=True):
            scores = q_h @ k_h.mT / q_h.shape[-1] ** 0.5
            if self.widths[1] > self.widths[0]:
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
            heads.append(scores.softmax(-1) @ v_h)
        return self.proj(torch.cat(heads, -1) if self.widths[1] > self.widths[0] else sum(heads) / self.num_heads)


class MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.w0, self.w1 = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.w2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        return self.w2(F.gelu(self.w0(n), approximate="tanh") * self.w1(n))


class Projection(nn.Module):
    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        self.norm1, self.norm3, self.norm2 = nn.LayerNorm(in_width), nn.LayerNorm(in_width), nn.LayerNorm(out_width)
        self.attn, self.proj, self.mlp = Attention(in_width, out_width), nn.Linear(in_width, out_width), MLP(out_width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.proj(self.norm3(x)) + self.attn(self.norm1(x))
        return y + self.mlp(self.norm2(y))


class Book(nn.Embedding):
    def __init__(self, num_entries: int, width: int):
        super().__init__(num_entries + 1, width, padding_idx=num_entries)  # the last row must never be chosen
        self.register_buffer("cluster_size_ema", torch.rand(num_entries) + 1)
        self.register_buffer("embed_ema", torch.randn(num_entries, width))


class Quantizer(nn.Module):
    def __init__(self, num_entries: int, width: int, depth: int, shared: bool):
        super().__init__()
        book = Book(num_entries, width)
        self.codebooks = nn.ModuleList(book if shared else Book(num_entries, width) for _ in range(depth))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        residual, codes = z, []
        for book in self.codebooks:
            codes.append((residual[..., None, :] - book.weight[:-1]).square().sum(-1).argmin(-1))
            residual = residual - book.weight[codes[-1]]
        return z - residual, torch.stack(codes, -1)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3):
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels), norm(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class MapAttention(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        q, k, v = (conv(n).flatten(2) for conv in (self.q, self.k, self.v))  # [B, ch, h·w]
        weights = (q.mT @ k / x.shape[1] ** 0.5).softmax(-1)
        return x + self.proj_out((v @ weights.mT).view_as(x))


class Decoder(nn.Module):
    def __init__(self, in_channels: int, base: int, multipliers: list[int], num_res_blocks: int):
        super().__init__()
        channels = base * multipliers[-1]
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.mid = nn.Module()
        self.mid.block_1, self.mid.block_2 = Block(channels, channels), Block(channels, channels)
        self.mid.attn_1 = MapAttention(channels)
        levels = []
        for level, multiplier in reversed(list(enumerate(multipliers))):
            up = nn.Module()
            widths = [channels] + [base * multiplier] * (num_res_blocks + 1)
            up.block = nn.ModuleList(Block(a, b) for a, b in pairwise(widths))
            lowest = level == len(multipliers) - 1
            up.attn = nn.ModuleList(MapAttention(w) for w in widths[1:] if lowest)
            channels = base * multiplier
            if level:
                up.upsample = nn.Module()
                up.upsample.conv = nn.Conv2d(channels, channels, 3, padding=1)
            levels.insert(0, up)
        self.up = nn.ModuleList(levels)
        self.norm_out, self.conv_out = norm(channels), nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        h = self.mid.block_2(self.mid.attn_1(self.mid.block_1(self.conv_in(h))))
        for up in reversed(self.up):
            for i, block in enumerate(up.block):
                h = up.attn[i](block(h)) if len(up.attn) else block(h)
            if hasattr(up, "upsample"):
                h = up.upsample.conv(h.repeat_interleave(2, -1).repeat_interleave(2, -2))
        return self.conv_out(F.silu(self.norm_out(h)))


class ReleasedTokenizer(nn.Module):
    """Sizes by keyword; `taps` are shortcut, pixel and semantic layer; `start` is the side of the decoder's input."""

    def __init__(self, siglip: SiglipModel, taps: tuple[int, int, int], start: int, decoder: dict, **book):
        super().__init__()
        width, code_dim = siglip.config.vision_config.hidden_size, book["width"]
        self.taps, self.start, self.siglip_model = taps, start, siglip
        self.prequant_pix, self.prequant_sem = Projection(width, code_dim), Projection(width, code_dim)
        self.prequant_shortcut = Projection(width, code_dim)
        self.postquant_pix, self.postquant_sem = Projection(code_dim, width), Projection(code_dim, width)
        self.quantizer_pix, self.quantizer_sem = Quantizer(**book), Quantizer(**book)
        self.post_quant_conv = Block(width, decoder["in_channels"], kernel=1)
        self.decoder = Decoder(**decoder)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        vision, (shortcut, pixel, semantic) = self.siglip_model.vision_model, self.taps
        hidden = vision(pixel_values, output_hidden_states=True).hidden_states
        z_pix = self.prequant_pix(hidden[pixel]) + 0.6 * self.prequant_shortcut(hidden[shortcut])
        q_pix, pixel_codes = self.quantizer_pix(z_pix)
        q_sem, semantic_codes = self.quantizer_sem(self.prequant_sem(hidden[semantic]))
        f_sem = last = self.postquant_sem(q_sem)
        for layer in vision.encoder.layers[semantic:]:
            last = layer(last, attention_mask=None)
        side = round(q_pix.shape[1] ** 0.5)
        feature_map = self.postquant_pix(q_pix).transpose(1, 2).unflatten(2, (side, side))
        feature_map = F.interpolate(feature_map, size=(self.start, self.start), mode="bilinear", align_corners=False)
        return {
            "pixel": pixel_codes,
            "semantic": semantic_codes,
            "semantic_features": f_sem,
            "pooled": vision.head(vision.post_layernorm(last)),
            "reconstruction": self.decoder(self.post_quant_conv(feature_map)),
        }
