"""The discriminator in training: what it asks of the generator, and what it learns itself (paper Eq. 3, λ_g·L_G)."""

from dataclasses import replace

import torch
from torch import Tensor

from tokenizer.discriminator import AdversarialConfig, PatchDiscriminator, adaptive_weight, hinge_loss
from train.distributed import World
from train.optimizer import OptimizerConfig, apply_gradients, build_adamw
from train.schedule import num_steps


class Adversary:
    """A patch discriminator and its optimizer; both take part from step `start` on. Its weights do not decay."""

    def __init__(self, config: AdversarialConfig, optimizer: OptimizerConfig, steps: int, world: World):
        self.config, self.world, self.start = config, world, num_steps(config.start, steps)
        rate = optimizer.learning_rate if config.learning_rate is None else config.learning_rate
        self.optimizer_config = replace(optimizer, learning_rate=rate, weight_decay=0.0)
        self.discriminator = PatchDiscriminator(config.base_channels, config.num_layers).to(world.device)
        self.optimizer = build_adamw(self.discriminator.parameters(), self.optimizer_config)

    def score(self, reconstruction: Tensor) -> Tensor:
        """L_G = −mean D(x̂), float[]; the gradient reaches x̂ float[B, 3, h, w] and not the discriminator."""
        self.discriminator.requires_grad_(False)
        return -self.discriminator(reconstruction).float().mean()

    def weigh(self, score: Tensor, reconstruction_loss: Tensor, last_layer: Tensor) -> tuple[Tensor, Tensor]:
        """λ_g·w·L_G and the adaptive w, both float[], from the mean over ranks of the last layer's gradients."""
        losses = (reconstruction_loss, score)
        gradients = torch.stack([torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in losses])
        reconstruction_gradient, adversarial_gradient = self.world.mean(gradients)
        weight = adaptive_weight(reconstruction_gradient, adversarial_gradient, self.config)
        return self.config.weight * weight * score, weight

    def judge(self, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's own loss on pictures float[B, 3, h, w], and what tells whether it is in balance."""
        self.discriminator.requires_grad_(True)
        real_logits, fake_logits = (self.discriminator(x.detach()).float() for x in (real, fake))
        loss = hinge_loss(real_logits, fake_logits)
        right = ((real_logits > 0).float().mean() + (fake_logits < 0).float().mean()) / 2
        balance = {"loss": loss, "real": real_logits.mean(), "fake": fake_logits.mean(), "accuracy": right}
        return loss, {f"discriminator.{name}": value.detach() for name, value in balance.items()}

    def step(self, loss: Tensor) -> Tensor:
        """Applies the gradients of `loss`, the mean over ranks; returns their norm."""
        self.world.average_gradients(self.discriminator.parameters())
        return apply_gradients(self.optimizer, loss, self.optimizer_config.gradient_clipping)
