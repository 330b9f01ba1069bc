"""A detector as a script would have it that is written instead of Unfreeze."""

import torch

from trainer.model.detectors import Detector


def make_plain(detector: Detector) -> Detector:
    """The same detector as timm and torchvision compute it: in PyTorch's default memory format,
    norms after convolutions, nothing recorded."""
    for module in detector.modules():
        vars(module).pop("forward", None)
    detector.cuda_graphs.off = True
    detector.normalize = lambda seen: ((seen.float() - detector.mean) / detector.std).contiguous()  # type: ignore[method-assign]
    return detector.to(memory_format=torch.contiguous_format)  # type: ignore[no-any-return, call-overload]
