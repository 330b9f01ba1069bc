"""`unfreeze models`: every model, with what trains at each depth, within 80 columns."""

import io
import json
from typing import get_args

import pytest
from rich.console import Console

from search.commands.models import print_models
from trainer.config import CocoDetector, InputError
from trainer.model.backbones import TESTED_BACKBONES


def printed(name: str | None = None, width: int = 80) -> list[str]:
    out = io.StringIO()
    print_models(name, console=Console(file=out, width=width, highlight=False))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_all_models_are_listed_within_the_terminal(width: int) -> None:
    lines = printed(width=width)
    first = {line.split()[0] for line in lines if line.strip()}
    assert {*TESTED_BACKBONES, *get_args(CocoDetector)} <= first
    assert max(map(len, lines)) <= width
    (resnet,) = (line.split() for line in lines if line.startswith("resnet50"))
    assert resnet == ["resnet50", "1.14", "16.1", "23.2", "24.4", "24.6", "24.6"]


@pytest.mark.parametrize(("name", "count"), [(None, 21), ("resnet50", 1)])
def test_models_as_json(capsys: pytest.CaptureFixture[str], name: str | None, count: int) -> None:
    print_models(name, as_json=True)
    models = json.loads(capsys.readouterr().out)["models"]
    (resnet,) = (model for model in models if model["name"] == "resnet50")
    assert len(models) == count
    assert (resnet["detector"], resnet["backbone"]) == ("retinanet", "resnet50")
    assert [stage["layers"] for stage in resnet["stages"]][::4] == [["conv1", "bn1"], ["layer4"]]
    sizes = [stage["parameters"] for stage in resnet["stages"]]
    assert resnet["trainable"][0] == resnet["neck_and_head"]
    assert resnet["trainable"][-1] == resnet["neck_and_head"] + sum(sizes)


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("resnet50", ["layer4", "layer3", "layer2", "layer1", "conv1, bn1"]),
        ("fcos_resnet50_fpn", ["layer4", "layer3", "layer2", "layer1", "conv1, bn1"]),
        ("convnext_tiny", ["stages_3", "stages_2", "stages_1", "stem_0, stem_1, stages_0"]),
    ],
)
def test_one_model_is_shown_depth_by_depth(name: str, opened: list[str]) -> None:
    lines, stages = printed(name), len(opened)
    rows = [line.split() for line in lines if " stage " in line and ":" not in line]
    for depth, (row, layers) in enumerate(zip(rows, opened, strict=True), start=1):
        assert row[:3] == [str(depth), "stage", f"{stages + 1 - depth}"]
        assert f"stage {stages + 1 - depth}: {layers}" in lines


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt50", "timm has no 'resnt50'; did you mean resnet50?"),
        ("retinanet_resnet50", "timm has no 'retinanet_resnet50'; did you mean retinanet_resnet50"),
        ("resnet50.of_mine", "timm has no weights 'resnet50.of_mine'; "),
        ("vit_base_patch16_224", "vit_base_patch16_224 has feature maps at strides 16; a detector"),
    ],
)
def test_an_unknown_model_is_refused_with_a_reason(name: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        print_models(name)
    assert raised.value.errors[0].startswith(message)
