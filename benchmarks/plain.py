"""A detector as a script without Unfreeze would have it."""

import torch
from torch import Tensor

from trainer.model.detectors import Detector


def make_plain(detector: Detector) -> Detector:
    """The same detector as timm and torchvision compute it.

    It has PyTorch's default memory format, norms after convolutions, and no CUDA graphs.
    """

    def normalize(pictures: Tensor) -> Tensor:
        return ((pictures.float() - detector.mean) / detector.std).contiguous()

    for module in detector.modules():
        vars(module).pop("forward", None)
    detector.cuda_graphs.off = True
    vars(detector)["normalize"] = normalize
    return detector.to(memory_format=torch.contiguous_format)
