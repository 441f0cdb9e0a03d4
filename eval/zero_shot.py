"""Zero-shot classification and retrieval from image and text features (paper Table 1, on the shipped data).

A class is described by the captions of its training members, as ImageNet classes are by 80 templates: each text feature
is normalised, they are averaged, and the mean is normalised again.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def class_features(text_features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Normalised text features float[M, d] with a class each int64[M] → float[num_classes, d]."""
    sums = torch.zeros(num_classes, text_features.shape[1]).index_add_(0, labels, text_features)
    return F.normalize(sums, dim=-1)


def top1(image_features: Tensor, classes: Tensor, labels: Tensor) -> float:
    """Share of images float[N, d] whose nearest of `classes` float[c, d] is their label int64[N]."""
    return (image_features @ classes.T).argmax(1).eq(labels).float().mean().item()


def retrieval_at_1(image_features: Tensor, text_features: Tensor) -> dict[str, float]:
    """R@1 both ways for aligned pairs float[N, d]."""
    similarity = image_features @ text_features.T
    target = torch.arange(len(similarity))
    return {
        "text_to_image": similarity.argmax(0).eq(target).float().mean().item(),
        "image_to_text": similarity.argmax(1).eq(target).float().mean().item(),
    }
