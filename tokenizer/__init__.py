"""Image ↔ dual codes: the vision tower with two taps, two residual quantizers and the pixel decoder (paper §3.2)."""

from tokenizer.config import BRANCHES, DecoderConfig, QuantizerConfig, TokenizerConfig
from tokenizer.model import Codebooks, DualCodes, DualTokenizer, TokenizerOutput
from tokenizer.projection import ProjectionCache

__all__ = [
    "BRANCHES",
    "Codebooks",
    "DecoderConfig",
    "DualCodes",
    "DualTokenizer",
    "ProjectionCache",
    "QuantizerConfig",
    "TokenizerConfig",
    "TokenizerOutput",
]
