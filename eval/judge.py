"""The SigLIP tower with both halves: image and text features in one space.

It measures what codes mean (zero-shot classification, retrieval) and judges drawn images by their captions.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm
from transformers import AutoTokenizer, SiglipModel

TEXT_BATCH = 256


class Judge:
    """All features are L2-normalised float[*, d]; those of texts are on the CPU, however many they are."""

    def __init__(self, tower: str, device: torch.device | str = "cpu"):
        """`tower`: a SigLIP folder (of `dualtoken train-tower`) or hub id. Raises FileNotFoundError."""
        if Path(tower).exists() and not (Path(tower) / "config.json").is_file():
            raise FileNotFoundError(f"{tower} holds no SigLIP model; make one with `dualtoken train-tower`")
        try:
            self.model = SiglipModel.from_pretrained(tower, dtype=torch.float32).requires_grad_(False).eval().to(device)
            self.tokenizer = AutoTokenizer.from_pretrained(tower)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise FileNotFoundError(
                f"no SigLIP model with its text tokenizer at {tower!r}: "
                "give a folder of `dualtoken train-tower` or a hub id"
            ) from error
        # SigLIP2's tokenizer is Gemma's and knows no length of its own: 64, what the model was trained with.
        length = self.model.config.text_config.max_position_embeddings
        self.tokenizer.model_max_length = min(self.tokenizer.model_max_length, length)

    @torch.no_grad()
    def images(self, pixel_values: Tensor) -> Tensor:
        """float[B, 3, h, w] in [−1, 1] → float[B, d]; of another size than the tower's, by interpolated positions."""
        output = self.model.vision_model(pixel_values.to(self.model.device), **self._positions(pixel_values))
        return F.normalize(output.pooler_output, dim=-1)

    @torch.no_grad()
    def distance(self, reference: Tensor, images: Tensor) -> Tensor:
        """float[B, 3, h, w] in [−1, 1], twice → float[B] ≥ 0, how differently the tower sees them, patch by patch.

        ‖f/‖f‖ − g/‖g‖‖², the mean over patches and layers: LPIPS's form, without its calibration.
        """
        vision = self.model.vision_model
        hidden = vision.embeddings(torch.cat([reference, images]).to(self.model.device), **self._positions(images))
        of_layers = []
        for layer in vision.encoder.layers:
            output = layer(hidden, attention_mask=None)
            hidden = output if isinstance(output, Tensor) else output[0]
            ours, theirs = F.normalize(hidden, dim=-1).chunk(2)
            of_layers.append((ours - theirs).square().sum(-1).mean(1))
        return torch.stack(of_layers).mean(0)

    def _positions(self, pixel_values: Tensor) -> dict[str, bool]:
        return {"interpolate_pos_encoding": pixel_values.shape[-1] != self.model.config.vision_config.image_size}

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """N texts → float[N, d]."""
        features = []
        few = len(texts) <= 4 * TEXT_BATCH
        for start in tqdm(range(0, len(texts), TEXT_BATCH), desc="texts", unit="batch", disable=few or None):
            input_ids = encode_texts(self.tokenizer, texts[start : start + TEXT_BATCH])
            features.append(self.model.text_model(input_ids=input_ids.to(self.model.device)).pooler_output.cpu())
        return F.normalize(torch.cat(features), dim=-1)


def encode_texts(tokenizer: AutoTokenizer, texts: list[str]) -> Tensor:
    """int64[N, T], padded to the tokenizer's full length: SigLIP reads the text feature off the last position."""
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids  # type: ignore[operator]
