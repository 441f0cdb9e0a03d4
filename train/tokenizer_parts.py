"""Which parts of the tokenizer a stage trains: warm-up, joint and semantic differ by this list alone (paper §3.2).

shallow    the tower up to the pixel tap         pixel      projections and codebooks of the pixel branch
deep       from there to the semantic tap        semantic   those of the semantic branch
head       what follows, and the pooling         decoder    code vectors → image
"""

import re

from tokenizer import DualTokenizer

PARTS = ("shallow", "deep", "head", "pixel", "semantic", "decoder")


def freeze_all_but(model: DualTokenizer, trainable: list[str]) -> None:
    """Freezes the parameters and the codebooks of every part that `trainable` does not name.

    A single codebook, and the projection in front of it, are of both branches and learn with either.
    """
    both = {"pixel", "semantic"} if model.config.single_codebook else set()
    for name, parameter in model.named_parameters():
        own = {part_of(name, model.config.pixel_layer, model.config.semantic_layer)}
        parts = both or own if name.startswith("pixel_in.") else own
        parameter.requires_grad_(not parts.isdisjoint(trainable))
    for part, quantizer in (("pixel", model.pixel_quantizer), ("semantic", model.semantic_quantizer)):
        if (both or {part}).isdisjoint(trainable):
            quantizer.freeze()


def part_of(name: str, pixel_layer: int, semantic_layer: int) -> str:
    """The part that the parameter `name` of a DualTokenizer belongs to; layers of the tower count from 1."""
    module = name.partition(".")[0].partition("_")[0]
    if module != "tower":
        return module
    layer = re.search(r"\.layers?\.(\d+)\.", name)
    if layer is None:  # before the first layer or after the last
        return "shallow" if "embeddings" in name else "head"
    number = int(layer[1]) + 1
    return "shallow" if number <= pixel_layer else "deep" if number <= semantic_layer else "head"


def check_parts(trainable: list[str]) -> None:
    unknown = [part for part in trainable if part not in PARTS]
    if unknown or not trainable:
        raise ValueError(f"trainable={trainable} must name one or more of {', '.join(PARTS)}")
