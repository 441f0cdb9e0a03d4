"""Does a drawn image show its caption? The tower retrieves captions from images and recognises the asked-for style.

The same figures for the original pictures, and for what the tokenizer keeps of them, are the ceilings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from data.image_batches import ImageSet
from eval.draw import draw_batch
from eval.judge import Judge
from eval.retrieval import retrieval_at_1
from eval.zero_shot import accuracy, class_features
from heads.sampling import SamplingConfig
from mllm.pretrained import Unified


@dataclass(frozen=True)
class Prompts:
    """Captions of distinct subjects, with their pictures and the class of each."""

    captions: list[str]
    styles: list[str]
    pixel_values: Tensor  # float[P, 3, h, w], the original pictures


def choose_prompts(images: ImageSet, num: int, seed: int, subject: str = "concept") -> Prompts:
    """`num` images drawn at random, no two of the same `subject`; their first captions are the prompts."""
    chosen: list[int] = []
    seen: set[str] = set()
    for index in np.random.default_rng(seed).permutation(len(images)).tolist():
        metadata = images.metadata[index]
        if missing := [key for key in (subject, "style") if key not in metadata]:
            raise ValueError(f"the JSON of picture {metadata['key']!r} has no {missing[0]}, which prompts depend on")
        if len(chosen) < num and metadata[subject] not in seen:
            seen.add(metadata[subject])
            chosen.append(index)
    if len(chosen) < num:
        raise ValueError(f"only {len(chosen)} subjects there are, {num} prompts were asked for; lower num_prompts")
    metadata = [images.metadata[i] for i in chosen]
    captions, styles = [m["captions"][0] for m in metadata], [m["style"] for m in metadata]
    return Prompts(captions, styles, images.batch(chosen).pixel_values)


class CaptionJudge:
    """Scores a list of images, one per prompt: R@1 of its caption among all, and the share of recognised styles."""

    def __init__(self, judge: Judge, prompts: Prompts, described: ImageSet):
        """`described`: captioned images whose captions say what each style means."""
        self.judge, self.prompts = judge, prompts
        self.names = sorted({m["style"] for m in described.metadata})
        labels = np.array([self.names.index(m["style"]) for m in described.metadata])
        text_features = judge.texts([m["captions"][0] for m in described.metadata]).numpy()
        self.styles = class_features(text_features, labels, len(self.names))
        self.text_features = judge.texts(prompts.captions).numpy()

    def score(self, pixel_values: Tensor) -> dict[str, float]:
        """float[P, 3, h, w] in [−1, 1] → figures."""
        features = self.judge.images(pixel_values).cpu().numpy()
        recall = retrieval_at_1(features, self.text_features)["image_to_text"]
        wanted = np.array([self.names.index(style) for style in self.prompts.styles])
        return {
            "retrieval_at_1": recall,
            "retrieval_over_chance": recall * len(self.prompts.captions),
            "style_accuracy": accuracy(features, self.styles, wanted),
        }


def draw_all(
    unified: Unified, captions: Sequence[str], sampling: SamplingConfig, seed: int, batch: int, desc: str
) -> list[Image.Image]:
    """One image per caption, caption i from seed + i."""
    images: list[Image.Image] = []
    with tqdm(total=len(captions), desc=desc, unit="image") as bar:
        for start in range(0, len(captions), batch):
            chunk = list(captions[start : start + batch])
            images += draw_batch(unified, chunk, sampling, [seed + start + i for i in range(len(chunk))])
            bar.update(len(chunk))
    return images
