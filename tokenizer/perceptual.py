"""LPIPS, the perceptual part of L_recon (paper Eq. 3; Zhang et al. 2018), by the lpips package.

The package brings the five linear layers. The VGG16 trunk, trained on ImageNet, is torchvision's: from a file or from
torchvision's own cache.
"""

import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


def build_lpips(weights: str | None = None) -> nn.Module:
    """`forward(x, y)`, both float[B, 3, h, w] in [−1, 1] → float[B, 1, 1, 1]; frozen, in evaluation mode.

    `weights` is a file of torchvision's VGG16 (vgg16-397923af.pth); None takes torchvision's cache, which a download
    fills. Raises FileNotFoundError where there are no weights and ValueError where they are not of VGG16, or damaged.
    """
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips still speaks torchvision's old words
        metric = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    names = metric.net.state_dict()  # slice3.10.weight is features.10.weight of torchvision
    try:
        state = _read(weights) if weights is not None else _torchvision_cache()
        metric.net.load_state_dict({name: state[f"features.{name.partition('.')[2]}"] for name in names})
    except (KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        name, reason = weights or "the file in torchvision's cache", " ".join(str(error).split())[:200]
        raise ValueError(f"{name} does not hold torchvision's VGG16, or is damaged: {reason}; fetch it anew") from error
    return metric.requires_grad_(False).eval()


def _read(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"LPIPS needs torchvision's VGG16 weights, and {path} does not exist: put vgg16-397923af.pth there, or set "
            "loss.perceptual_weights to where it is, or loss.perceptual=0"
        )
    return torch.load(path, map_location="cpu", weights_only=True)


def _torchvision_cache() -> dict[str, Tensor]:
    from torchvision.models import VGG16_Weights

    try:
        return dict(VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))
    except OSError as error:
        raise FileNotFoundError(
            "LPIPS needs torchvision's VGG16 weights, which are not in its cache and could not be downloaded: put "
            "vgg16-397923af.pth into $TORCH_HOME/hub/checkpoints, name a file by loss.perceptual_weights, or set "
            "loss.perceptual=0"
        ) from error
