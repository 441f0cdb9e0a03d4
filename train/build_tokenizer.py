"""What a tokenizer stage starts from: a pretrained tower with all else new, or the export of an earlier stage."""

import torch

from tokenizer import DualTokenizer, TokenizerConfig
from tokenizer.losses import TokenizerLoss
from tokenizer.tower import VisionTower
from train.adversary import Adversary
from train.tokenizer_parts import freeze_all_but


def begin(
    config: TokenizerConfig, init: str | None, trainable: list[str], gradient_checkpointing: bool, device: torch.device
) -> DualTokenizer:
    """The tokenizer on `device`, in training mode, all but `trainable` frozen. ValueError for a foreign `init`."""
    model = DualTokenizer.from_tower(config) if init is None else continue_from(init, config)
    freeze_all_but(model, trainable)
    if gradient_checkpointing:
        for tower in towers_of(model):
            tower.checkpoint_gradients()
    return model.to(device).train()


def continue_from(folder: str, config: TokenizerConfig) -> DualTokenizer:
    """The tokenizer of an earlier stage, whose codebooks learn again; weights are its own, choices are this stage's."""
    earlier = DualTokenizer.from_pretrained(folder)
    model = DualTokenizer(config, VisionTower(earlier.tower.config.to_dict(), config.attention))
    taps = [(c.pixel_shortcut_layer, c.pixel_layer, c.semantic_layer) for c in (earlier.config, config)]
    try:
        model.load_state_dict(earlier.state_dict())
    except RuntimeError as error:
        raise ValueError(f"tokenizer.* describes another tokenizer than init={folder}: {error}"[:400]) from error
    if taps[0] != taps[1]:
        raise ValueError(f"init={folder} has its taps at layers {taps[0]}, tokenizer.* at {taps[1]}: make them agree")
    return model


def towers_of(model: DualTokenizer) -> list[VisionTower]:
    return [tower for tower in (model.tower, model.pixel_tower) if tower is not None]


def compile_networks(
    model: DualTokenizer, objective: TokenizerLoss, adversary: Adversary | None, backend: str = "inductor"
) -> None:
    """Towers, decoder, LPIPS and discriminator by torch.compile.

    Quantizers stay eager, for their products must be exact, and so does the decoder's head: the gradient of its last
    layer alone would cost the backward pass of everything that is compiled with it.
    """
    if adversary is not None:  # its weight takes gradients that keep the graph: buffers must survive a backward pass
        torch._functorch.config.donated_buffer = False
    for tower in (*towers_of(model), objective.reference_tower):
        tower.run = torch.compile(tower.run, backend=backend)  # type: ignore[method-assign]
    discriminator = adversary.discriminator if adversary is not None else None
    for network in (model.decoder.stem, model.decoder.levels, objective.perceptual, discriminator):
        if network is not None:
            network.compile(backend=backend)
