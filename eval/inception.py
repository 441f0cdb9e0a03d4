"""Inception v3 of December 2015, whose pooled features define FID, from the user's own weights file.

torchvision's network with three changes that TensorFlow's graph has: average pools do not count their padding, the last
block pools by maximum, and the classifier has 1008 rows. The weights are the port `pt_inception-2015-12-05` that
pytorch-fid and torch-fidelity use. They are read from a path and never replaced: another backbone is another number.
"""

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import inception

INPUT_SIZE = 299
_average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)


class _TensorFlowPool(nn.Module):
    """A block of torchvision's whose last branch, the one that pools, pools as TensorFlow's graph does."""

    pool: Callable[[Tensor], Tensor] = _average
    branch_pool: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        *branches, _ = self._forward(x)  # type: ignore[operator]  # torchvision's block: every branch, not yet joined
        return torch.cat([*branches, self.branch_pool(self.pool(x))], dim=1)


class _BlockA(_TensorFlowPool, inception.InceptionA): ...


class _BlockC(_TensorFlowPool, inception.InceptionC): ...


class _BlockE(_TensorFlowPool, inception.InceptionE): ...


class _LastBlockE(_BlockE):
    pool = _maximum


def fid_inception() -> inception.Inception3:
    """The network, random: float[B, 3, 299, 299] in about [−1, 1] → float[B, 1008], the classifier's logits."""
    blocks: list[Callable[..., nn.Module]] = [
        inception.BasicConv2d,
        _BlockA,
        inception.InceptionB,
        _BlockC,
        inception.InceptionD,
        _BlockE,
        inception.InceptionAux,
    ]
    net = inception.Inception3(num_classes=1008, aux_logits=False, inception_blocks=blocks, init_weights=False)
    net.Mixed_7c = _LastBlockE(2048)
    return net


def load_fid_inception(path: str | Path) -> nn.Module:
    """float[B, 3, 299, 299] in about [−1, 1] → float[B, 2048], frozen, with the weights of a file.

    Raises FileNotFoundError without the file and ValueError where it is something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"FID needs the Inception weights of 2015 and there is no file {path}: download "
            "pt_inception-2015-12-05-6726825d.pth from the releases of pytorch-fid, or ask for no FID"
        )
    net = fid_inception()
    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, TypeError, AttributeError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not pt_inception-2015-12-05, the network that defines FID: {reason}") from error
    net.fc = nn.Identity()
    return net.requires_grad_(False).eval()
