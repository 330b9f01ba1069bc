"""Every backbone and every detector: trained, exported, rebuilt; and their architectures pinned.

`python -m tests.trainer_tests.model.test_every_model` writes golden.json again.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from trainer.config import CocoDetector, Model, NewDetector, TrainConfig
from trainer.data.dataset import Splits
from trainer.evaluation.coco_metrics import measure
from trainer.export.bundle import export, load_export
from trainer.model.backbones import TESTED_BACKBONES
from trainer.model.checkpoint import BEST, load, load_trained_state
from trainer.model.detectors import Detector, build
from trainer.training.fit import fit

GOLDEN = Path(__file__).with_name("golden.json")
LITE0 = "tf_efficientnet_lite0"
EVERYDAY = [
    *(("retinanet", backbone) for backbone in TESTED_BACKBONES),
    *((detector, LITE0) for detector in get_args(NewDetector)[1:]),
    ("ssdlite320_mobilenet_v3_large", ""),
]
REST = [
    *(pair for pair in product(get_args(NewDetector)[1:], TESTED_BACKBONES) if pair[1] != LITE0),
    *((detector, "") for detector in get_args(CocoDetector) if (detector, "") not in EVERYDAY),
]
DEEPER = [pair for pair in EVERYDAY if pair[1] in {"vgg16_bn", "resnet101", "inception_v4"}]
"""The large ones of families with a smaller member; they train as long as half of the others."""


def pairs(slow: list[tuple[str, str]]) -> list[Any]:
    """All pairs; those of `slow` are marked as slow tests."""
    mark = pytest.mark.slow
    return [pytest.param(*p, marks=mark) if p in slow else p for p in [*EVERYDAY, *REST]]


def settings(detector: str, backbone: str) -> dict[str, Any]:
    size = 288 if detector == "ssd300_vgg16" else 96
    model = {"detector": detector, "weights": "none", "image_size": size}
    return model | ({"backbone": backbone} if backbone else {})


@pytest.mark.parametrize(("detector", "backbone"), pairs(slow=[*REST, *DEEPER]))
def test_it_trains_and_its_export_is_what_was_trained(
    tiny: Splits,
    tiny_config: Callable[..., TrainConfig],
    tmp_path: Path,
    detector: str,
    backbone: str,
) -> None:
    """One step at depth 1; the export, rebuilt from spec.json, gives the same bits."""
    changes = {f"model.{key}": value for key, value in settings(detector, backbone).items()}
    config = tiny_config(
        {
            **changes,
            "train.head.epochs": 0,
            "train.unfreeze.epochs": 1,
            "train.unfreeze.depth": 1,
            "train.unfreeze.schedule": "at_once",
        }
    )
    data = replace(
        tiny,
        train=replace(tiny.train, pictures=tiny.train.pictures[:2]),
        val=replace(tiny.val, pictures=tiny.val.pictures[:1]),
    )
    result = fit(config, data, tmp_path / "trial", lambda report: True)
    assert result.epochs == 1
    export(tmp_path / "trial" / BEST, config, data.categories, data.digest, tmp_path / "out")
    torch.manual_seed(config.train.seed)
    trained = build(config.model, len(data.categories))
    load_trained_state(trained, load(tmp_path / "trial" / BEST))
    torch.manual_seed(99)
    rebuilt, spec = load_export(tmp_path / "out")
    assert (spec.config, spec.normalization) == (config, trained.normalization)
    size = config.model.image_size
    assert measure(rebuilt, data.val, size) == measure(trained.eval(), data.val, size)
    pairs = zip(outputs(rebuilt, size), outputs(trained, size), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


# -- golden outputs -------------------------------------------------------------------------------


def picture(size: int) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=draw)


def pattern(shape: torch.Size) -> Tensor:
    """Pseudo-random numbers between -1 and 1, the same on every machine."""
    place = torch.arange(shape.numel(), dtype=torch.float64)
    return ((place * 0.6180339887498949) % 1 * 2 - 1).reshape(shape).float()


def fill(detector: Detector) -> None:
    """Fill every tensor by its shape alone, so that activations neither vanish nor explode."""
    for name, tensor in detector.state_dict().items():
        if tensor.ndim > 1:
            fan_in = tensor[0].numel()
            tensor.copy_(pattern(tensor.shape) * (6 / fan_in) ** 0.5)
        elif name.endswith(("weight", "running_var", "gamma")):
            tensor.copy_(1 + 0.1 * pattern(tensor.shape))
        elif tensor.is_floating_point():
            tensor.copy_(0.1 * pattern(tensor.shape))


@torch.no_grad()
def outputs(model: Detector, size: int) -> Iterator[Tensor]:
    """A detector's pyramid of a picture, its head's outputs and its anchors."""
    levels = [*model.features(picture(size)).values()]
    yield from levels
    yield from _head_outputs(model, levels)
    yield _anchors(model, levels, size)


def _head_outputs(model: Detector, levels: list[Tensor]) -> list[Tensor]:
    head: Any = model.head
    if not hasattr(head, "rpn"):
        return list(head.head(levels).values())
    proposed = [torch.cat([t.flatten() for t in part]) for part in head.rpn.head(levels)]
    pooled = pattern(torch.Size((1, levels[0].shape[1], 7, 7)))
    return [*proposed, *head.roi_heads.box_predictor(head.roi_heads.box_head(pooled))]


def _anchors(model: Detector, levels: list[Tensor], size: int) -> Tensor:
    head: Any = model.head
    generator = head.rpn.anchor_generator if hasattr(head, "rpn") else head.anchor_generator
    (anchors,) = generator(ImageList(picture(size), [(size, size)]), levels)
    result: Tensor = anchors
    return result


@torch.no_grad()
def numbers(detector: str, backbone: str) -> dict[str, Any]:
    """Figures that pin an architecture: its tensors, stages, outputs for a picture, and anchors."""
    config = settings(detector, backbone)
    model = build(Model.model_validate(config), 2).eval()
    shapes = "\n".join(f"{name} {tuple(t.shape)}" for name, t in model.state_dict().items())
    fill(model)
    size = config["image_size"]
    levels = [*model.features(picture(size)).values()]
    anchors = _anchors(model, levels, size)
    return {
        "tensors": hashlib.sha256(shapes.encode()).hexdigest()[:16],
        "stages": [f"{s.parameters[0]} to {s.parameters[-1]}" for s in model.stages],
        "pyramid": [_short(level.abs().mean()) for level in levels],
        "outputs": [_short(output.abs().mean()) for output in _head_outputs(model, levels)],
        "anchors": [len(anchors), *(_short(spread) for spread in anchors.double().std(dim=0))],
    }


def _short(number: Tensor) -> float:
    return float(f"{float(number):.6g}")


@pytest.mark.parametrize(("detector", "backbone"), pairs(slow=REST))
def test_the_architecture_is_what_it_was(detector: str, backbone: str) -> None:
    expected = json.loads(GOLDEN.read_text())[f"{detector} {backbone}".strip()]
    actual = numbers(detector, backbone)
    for name in ("tensors", "stages"):
        assert actual.pop(name) == expected.pop(name)
    for name, values in expected.items():
        assert actual[name] == pytest.approx(values, rel=1e-3), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = {f"{d} {b}".strip(): numbers(d, b) for d, b in [*EVERYDAY, *REST]}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in made.items())
    GOLDEN.write_text(f"{{\n{lines}\n}}\n")
