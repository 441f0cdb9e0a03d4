"""Raw images → code stores: every image passes through the tokenizer once, however long the training (Sec. 3.3)."""

from dataclasses import dataclass

import torch
from tqdm import tqdm

from data.codes import CodeWriter
from data.image_batches import ImageSet
from data.images import ImageTransform
from tokenizer import DualTokenizer
from train.precision import set_matmul_precision


@dataclass(frozen=True)
class PretokenizeConfig:
    tokenizer: str = "runs/demo/tokenizer/export"
    source: str = "assets/emoji/train-*.tar.gz"
    out: str = "runs/demo/codes/train"
    batch_size: int = 128
    precision: str = "auto"


@torch.no_grad()
def main(config: PretokenizeConfig) -> None:
    set_matmul_precision(config.precision)
    tokenizer = DualTokenizer.from_pretrained(config.tokenizer)
    transform = ImageTransform(tokenizer.image_size)
    images = ImageSet(config.source, transform)
    quantizer = tokenizer.config.pixel
    provenance = {
        "tokenizer_id": tokenizer.tokenizer_id,
        "transform": transform.describe(),
        "num_patches": tokenizer.grid[0] * tokenizer.grid[1],
        "grid": list(tokenizer.grid),
        "depth": quantizer.depth,
        "codebook_size": quantizer.codebook_size,
        "source": config.source,
    }
    with CodeWriter(config.out, provenance) as writer, tqdm(total=len(images), desc="pretokenize", unit="image") as bar:
        for batch in images.in_order(config.batch_size):
            codes = tokenizer.encode(batch.pixel_values)
            for pixel, semantic, metadata in zip(*codes, batch.metadata, strict=True):
                writer.add(metadata["key"], pixel.numpy(), semantic.numpy(), metadata["captions"], metadata)
            bar.update(len(batch.metadata))
