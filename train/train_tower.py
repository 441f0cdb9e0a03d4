"""Tower stage: a small SigLIP trained on images and captions with the sigmoid loss (Zhai et al. 2023).

No pretrained tower can ship with the repository, so the tiny scale trains its own, in the `transformers` classes and
with a sentencepiece text tokenizer as SigLIP's; the full scale names `google/siglip-so400m-patch14-384` in the
tokenizer's config and skips this stage.
"""

import io
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipTokenizer

from data.image_batches import ImageDataConfig, ImageSet, permuted_batches
from data.images import ImageTransform
from eval.judge import Judge, encode_texts
from eval.retrieval import retrieval_at_1
from tokenizer.attention import resolve_attention
from train.checkpoint import latest_checkpoint
from train.distributed import join_world
from train.loop import Loop, LoopConfig
from train.optimizer import OptimizerConfig, build_adamw, optimise
from train.precision import autocast, set_matmul_precision
from train.replaced_folder import replaced
from train.resume import refuse_changed_config
from train.run import Run, TrackingConfig, write_atomically
from train.schedule import ScheduleConfig


@dataclass(frozen=True)
class TransformerSize:
    hidden_size: int = 192
    intermediate_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 3


@dataclass(frozen=True)
class TrainTowerConfig:
    out: str = "runs/tower"
    data: ImageDataConfig = field(default_factory=ImageDataConfig)
    validation: str = "assets/emoji/unseen_style-*.tar.gz"
    image_size: int = 64
    patch_size: int = 8
    vision: TransformerSize = field(default_factory=TransformerSize)
    text: TransformerSize = field(default_factory=lambda: TransformerSize(num_hidden_layers=3))
    text_length: int = 32  # tokens, padded
    attention: str = "sdpa"  # on CPUs "eager" is a third faster at 64 patches: the fused backward is slow there
    vocabulary_size: int = 2000
    logit_scale: float = 10.0  # where the loss's two scalars start; SigLIP's values suit long runs with huge batches
    logit_bias: float = -10.0
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    precision: str = "auto"
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def main(config: TrainTowerConfig) -> None:
    set_matmul_precision(config.precision)
    world = join_world()
    refuse_changed_config(config.out, config)
    torch.manual_seed(config.loop.seed)
    run = Run(config.out, config, config.tracking)
    images = ImageSet(config.data.shards, ImageTransform(config.image_size))
    batches = permuted_batches(images, config.data.batch_size, config.data.seed)
    tokenizer = train_text_tokenizer([c for m in images.metadata for c in m["captions"]], config)
    model = build_siglip(config, len(tokenizer)).to(world.device)
    optimizer = build_adamw(model.parameters(), config.optimizer)
    loop = Loop(run, config.loop, config.schedule, {"model": model, "optimizer": optimizer}, batches, "tower", world)
    for step in loop:
        batch = next(batches)
        draw = np.random.default_rng((config.data.seed, step))
        captions = [m["captions"][draw.integers(len(m["captions"]))] for m in batch.metadata]
        input_ids = encode_texts(tokenizer, captions).to(world.device)
        with autocast(config.precision, world.device.type):
            output = model(input_ids=input_ids, pixel_values=batch.pixel_values.to(world.device))
        loss = sigmoid_loss(output.logits_per_image.float())
        norm = optimise(optimizer, loss, config.optimizer.gradient_clipping)
        loop.record(loss=loss, grad_norm=norm, logit_scale=model.logit_scale, logit_bias=model.logit_bias)
    with replaced(run.export) as partial:
        save_tower(model, tokenizer, config, partial)
    num_parameters = sum(p.numel() for p in model.parameters())
    run.finish({"validation": validate(str(run.export), config, world.device), "parameters": num_parameters})


def sigmoid_loss(logits: Tensor) -> Tensor:
    """float[B, B], matches on the diagonal: every pair is a yes/no question; summed per image, mean over images."""
    signs = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)


def build_siglip(config: TrainTowerConfig, vocabulary_size: int) -> SiglipModel:
    """A SigLIP of the configured size with random weights."""
    if config.vision.hidden_size != config.text.hidden_size:
        raise ValueError("vision.hidden_size and text.hidden_size must agree: SigLIP compares the features directly")
    vision = {**asdict(config.vision), "image_size": config.image_size, "patch_size": config.patch_size}
    text = {
        **asdict(config.text),
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "vocab_size": vocabulary_size,
        "max_position_embeddings": config.text_length,
        "projection_size": config.text.hidden_size,
    }
    siglip = SiglipConfig(text_config=text, vision_config=vision)
    model = SiglipModel._from_config(siglip, attn_implementation=resolve_attention(config.attention))
    torch.nn.init.constant_(model.logit_scale, math.log(config.logit_scale))
    torch.nn.init.constant_(model.logit_bias, config.logit_bias)
    return model


def train_text_tokenizer(captions: list[str], config: TrainTowerConfig) -> SiglipTokenizer:
    """A sentencepiece unigram model over the captions, in SigLIP's tokenizer class; kept in the run folder."""
    path = Path(config.out) / "spiece.model"
    if latest_checkpoint(Path(config.out) / "checkpoints") is None:  # else it is the one that the weights know
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter([" ".join(c.lower().split()) for c in captions]),
                model_writer=model,
                vocab_size=config.vocabulary_size,
                hard_vocab_limit=False,
                bos_id=-1,
                pad_id=-1,
                eos_id=1,
                unk_id=0,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = str(error).rsplit("] ", 1)[-1]
            raise ValueError(f"no text tokenizer of vocabulary_size={config.vocabulary_size}: {reason}") from error
        write_atomically(path, model.getvalue())
    return SiglipTokenizer(vocab_file=str(path), model_max_length=config.text_length)


def save_tower(model: SiglipModel, tokenizer: SiglipTokenizer, config: TrainTowerConfig, folder: Path) -> None:
    """A folder like the hub's: model, text tokenizer, image processor."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": config.image_size, "width": config.image_size}
    SiglipImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)


def validate(tower: str, config: TrainTowerConfig, device: torch.device) -> dict[str, float]:
    """Retrieval over the validation images by their first captions, read back from the exported folder."""
    judge = Judge(tower, device)
    images = ImageSet(config.validation, ImageTransform(config.image_size))
    image_features = torch.cat([judge.images(b.pixel_values).cpu() for b in images.in_order(config.data.batch_size)])
    text_features = judge.texts([m["captions"][0] for m in images.metadata])
    return {**retrieval_at_1(image_features.numpy(), text_features.numpy()), "chance": 1 / len(images)}
