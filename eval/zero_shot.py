"""Zero-shot classification and retrieval from image and text features (paper Tab. 1; arithmetic of open_clip's).

A class is described by sentences, ImageNet's by 80 templates and the shipped data's by captions: each text feature is
normalised, they are averaged, and the mean is normalised again.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 4096  # queries at a time: all captions against all images would be a matrix of gigabytes


def class_features(text_features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Normalised text features float[M, d] with a class each int64[M] → float[num_classes, d]."""
    sums = torch.zeros(num_classes, text_features.shape[1]).index_add_(0, labels, text_features)
    return F.normalize(sums, dim=-1)


def accuracy(image_features: Tensor, classes: Tensor, labels: Tensor, k: int = 1) -> float:
    """Share of images float[N, d] with their label int64[N] among the `k` nearest of `classes` float[c, d]."""
    return (_nearest(image_features, classes, k) == labels[:, None]).any(1).float().mean().item()


def recall(
    image_features: Tensor, text_features: Tensor, text_image: Tensor, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, dict[str, float]]:
    """R@K both ways between images float[N, d] and texts float[M, d], of the images `text_image` int64[M].

    Text to image: of all texts, how many have their image among the K nearest? Image to text: of all images, any text?
    """
    images = _nearest(text_features, image_features, max(ks)) == text_image[:, None]
    texts = text_image[_nearest(image_features, text_features, max(ks))] == torch.arange(len(image_features))[:, None]
    found = {"text_to_image": images, "image_to_text": texts}
    return {name: {f"recall@{k}": hit[:, :k].any(1).float().mean().item() for k in ks} for name, hit in found.items()}


def retrieval_at_1(image_features: Tensor, text_features: Tensor) -> dict[str, float]:
    """R@1 both ways for aligned pairs float[N, d]."""
    pairs = recall(image_features, text_features, torch.arange(len(image_features)), ks=[1])
    return {name: figures["recall@1"] for name, figures in pairs.items()}


def _nearest(queries: Tensor, keys: Tensor, k: int) -> Tensor:
    """float[N, d], float[M, d] → int64[N, min(k, M)], the keys of greatest product, best first."""
    k = min(k, len(keys))
    return torch.cat([(chunk @ keys.T).topk(k, dim=1).indices for chunk in queries.split(_CHUNK)])
