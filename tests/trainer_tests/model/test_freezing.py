"""Freezing: not one bit below the depth changes, everything above it trains."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from timm.layers.drop import DropPath
from torch import Tensor

from trainer.config import Model, TrainConfig
from trainer.data.batches import Batch
from trainer.model.backbones import Backbone
from trainer.model.detectors import Detector, build
from trainer.model.freezing import opened_names, set_depth
from trainer.phases import Phase, plan
from trainer.training import lr_schedule, optim
from trainer.training.engine import train_one_epoch


@pytest.fixture(scope="module")
def config(tiny_config: Callable[..., TrainConfig]) -> TrainConfig:
    return tiny_config({"model.image_size": 64, "train.unfreeze.lr": 0.01})


@pytest.fixture(scope="module")
def built(config: TrainConfig) -> Detector:
    torch.manual_seed(0)
    return build(config.model, classes=2)


@pytest.fixture
def detector(built: Detector) -> Detector:
    return copy.deepcopy(built)


def batches(size: int = 64) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=draw)
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    return [Batch(pictures, [target, target])]


def train(
    detector: Detector,
    config: TrainConfig,
    phase: Phase,
    optimizer: object = None,
    size: int = 64,
) -> None:
    """Train two epochs of one step each."""
    chosen = optimizer or optim.build(detector, config.train)
    assert isinstance(chosen, torch.optim.Optimizer)
    for epoch in range(2):
        set_depth(detector, detector.stages, phase.depth, adapt_statistics=phase.adapt_statistics)
        train_one_epoch(
            detector,
            chosen,
            torch.amp.GradScaler("cpu", enabled=False),
            batches(size),
            set_step=lambda step: lr_schedule.set_step(chosen, phase, 0.0, step, 1),
            precision="fp32",
            clip_norm=10.0,
            seed=0,
            epoch=epoch,
        )


def bits(detector: Detector) -> dict[str, bytes]:
    def raw(tensor: Tensor) -> bytes:
        return tensor.detach().contiguous().numpy().tobytes()

    return {name: raw(tensor) for name, tensor in detector.state_dict().items()}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_in_the_head_phase_not_one_bit_of_the_backbone_changes(
    detector: Detector, config: TrainConfig
) -> None:
    before = bits(detector)
    train(detector, config, plan(config.train, 5)[0])
    moved = changed(before, bits(detector))
    assert not {name for name in moved if name.startswith("backbone.")}
    assert moved == {name for name in before if not name.startswith("backbone.")}


@pytest.mark.parametrize("adapt", [False, True], ids=["keep", "adapt"])
@pytest.mark.parametrize("depth", range(6))
def test_exactly_the_top_stages_change(
    detector: Detector, config: TrainConfig, depth: int, adapt: bool
) -> None:
    """Their parameters change, and with `adapt` their BatchNorm statistics."""
    before = bits(detector)
    unfreeze = replace(plan(config.train, 5)[-1], depth=depth, adapt_statistics=adapt)
    train(detector, config, unfreeze)
    moved = changed(before, bits(detector))
    opened = detector.stages[5 - depth :]
    expected = {f"backbone.{name}" for stage in opened for name in stage.parameters}
    if adapt:
        expected |= {f"backbone.{name}" for stage in opened for name in stage.buffers}
    assert {name for name in moved if name.startswith("backbone.")} == expected


def test_sgd_with_momentum_and_decay_leaves_frozen_stages_alone_too(
    detector: Detector, config: TrainConfig
) -> None:
    sgd = config.train.model_copy(update={"optimizer": "sgd"})
    before = bits(detector)
    phase = replace(plan(config.train, 5)[-1], depth=2, weight_decay=0.5)
    train(detector, config, phase, optim.build(detector, sgd))
    moved = {name for name in changed(before, bits(detector)) if name.startswith("backbone.")}
    assert moved and moved <= {f"backbone.{n}" for n in opened_names(detector.stages, 2)}


def test_stages_frozen_again_do_not_change_despite_optimizer_state(
    detector: Detector, config: TrainConfig
) -> None:
    optimizer = optim.build(detector, config.train)
    phase = replace(plan(config.train, 5)[-1], depth=5)
    train(detector, config, phase, optimizer)
    before = bits(detector)
    train(detector, config, replace(phase, depth=0), optimizer)
    moved = changed(before, bits(detector))
    assert not {name for name in moved if name.startswith("backbone.")}


def test_norms_use_batch_statistics_only_in_open_stages_that_adapt(detector: Detector) -> None:
    for adapt in (False, True):
        set_depth(detector, detector.stages, 2, adapt_statistics=adapt)
        norms = {
            name: module.training
            for name, module in detector.backbone.named_modules()
            if isinstance(module, torch.nn.BatchNorm2d)
        }
        opened = {name for stage in detector.stages[3:] for name in stage.modules}
        assert norms == {name: adapt and name in opened for name in norms}


def state(detector: Detector) -> dict[str, bool]:
    modes = {f"mode of {name}": module.training for name, module in detector.named_modules()}
    return modes | {name: p.requires_grad for name, p in detector.named_parameters()}


@pytest.mark.parametrize("depth", [0, 2, 5])
def test_a_depths_freeze_state_does_not_depend_on_earlier_ones(
    detector: Detector, depth: int
) -> None:
    set_depth(detector, detector.stages, depth)
    first = state(detector)
    set_depth(detector, detector.stages, depth)
    assert state(detector) == first
    set_depth(detector, detector.stages, 5 - depth)
    detector.eval()
    set_depth(detector, detector.stages, depth)
    assert state(detector) == first


def test_neck_and_head_train_at_every_depth(detector: Detector) -> None:
    for depth in range(6):
        set_depth(detector, detector.stages, depth)
        for part in (detector.neck, detector.head):
            assert all(p.requires_grad for p in part.parameters())
            assert all(module.training for module in part.modules())


def test_frozen_parameters_hold_no_gradient(detector: Detector, config: TrainConfig) -> None:
    train(detector, config, replace(plan(config.train, 5)[-1], depth=5))
    set_depth(detector, detector.stages, 1)
    for name, parameter in detector.named_parameters():
        assert parameter.requires_grad or parameter.grad is None, name


STAGES = {
    "tf_efficientnet_lite0": 5,
    "resnet50": 5,
    "vgg16": 5,
    "inception_v3": 5,
    "convnext_tiny": 4,
}


@pytest.fixture(scope="module", params=STAGES)
def backbone(
    request: pytest.FixtureRequest, without_tensors: Callable[[str], Backbone]
) -> Backbone:
    return without_tensors(request.param)


def test_stages_hold_every_parameter_and_buffer_exactly_once(
    backbone: Backbone,
) -> None:
    module, stages = backbone.module, backbone.stages
    parameters = [name for stage in stages for name in stage.parameters]
    buffers = [name for stage in stages for name in stage.buffers]
    modules = [name for stage in stages for name in stage.modules]
    assert sorted(parameters) == sorted(name for name, _ in module.named_parameters())
    assert sorted(buffers) == sorted(name for name, _ in module.named_buffers())
    assert sorted(modules) == sorted(name for name, _ in module.named_modules())


def test_every_stage_has_parameters_and_they_are_in_order(backbone: Backbone) -> None:
    assert all(stage.parameters for stage in backbone.stages)
    held = [name for stage in backbone.stages for name in stage.parameters]
    assert held == [name for name, _ in backbone.module.named_parameters()]


def test_stages_open_from_the_top(backbone: Backbone) -> None:
    stages = backbone.stages
    assert opened_names(stages, 0) == set()
    for depth in range(1, len(stages) + 1):
        top = stages[len(stages) - depth]
        more = opened_names(stages, depth) - opened_names(stages, depth - 1)
        assert more == {*top.parameters, *top.buffers}
    assert opened_names(stages, len(stages)) == set(backbone.module.state_dict())


def test_resnet_and_convnext_have_their_usual_stages(
    without_tensors: Callable[[str], Backbone],
) -> None:
    resnet, convnext = (without_tensors(name).stages for name in ("resnet50", "convnext_tiny"))
    assert [{name.split(".")[0] for name in stage.parameters} for stage in resnet] == (
        [{"conv1", "bn1"}, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"}]
    )
    assert {name.split(".")[0] for name in convnext[0].parameters} == (
        {"stem_0", "stem_1", "stages_0"}
    )
    assert {name.split(".")[0] for name in convnext[3].parameters} == {"stages_3"}


@pytest.mark.parametrize(
    "name",
    [
        "retinanet",
        "fcos",
        "faster_rcnn",
        "ssd",
        "ssdlite320_mobilenet_v3_large",
        "retinanet_resnet50_fpn",
        pytest.param("fcos_resnet50_fpn", marks=pytest.mark.slow),
        pytest.param("retinanet_resnet50_fpn_v2", marks=pytest.mark.slow),
        pytest.param("fasterrcnn_resnet50_fpn", marks=pytest.mark.slow),
        pytest.param("fasterrcnn_resnet50_fpn_v2", marks=pytest.mark.slow),
        pytest.param("fasterrcnn_mobilenet_v3_large_fpn", marks=pytest.mark.slow),
        pytest.param("fasterrcnn_mobilenet_v3_large_320_fpn", marks=pytest.mark.slow),
        pytest.param("ssd300_vgg16", marks=pytest.mark.slow),
    ],
)
def test_every_detector_opens_exactly_its_stages(config: TrainConfig, name: str) -> None:
    """No bit of a frozen parameter or buffer changes; some of every open stage do."""
    torch.manual_seed(0)
    size = 288 if name == "ssd300_vgg16" else 64
    model = Model.model_validate({"detector": name, "weights": "none", "image_size": size})
    detector = build(model, classes=2)
    stages = detector.stages
    for depth in range(len(stages) + 1):
        before = bits(detector)
        phase = replace(plan(config.train, 5)[-1], depth=depth, weight_decay=0.1)
        train(detector, config, phase, size=size)
        moved = changed(before, bits(detector))
        inside = {name.removeprefix("backbone.") for name in moved if name.startswith("backbone.")}
        assert inside <= {
            name for stage in stages[len(stages) - depth :] for name in stage.parameters
        }
        assert [bool(inside & set(stage.parameters)) for stage in stages] == (
            [i >= len(stages) - depth for i in range(len(stages))]
        )
        assert moved - {f"backbone.{name}" for name in inside}


def test_blocks_are_skipped_in_open_stages_alone(config: TrainConfig, detector: Detector) -> None:
    """The deepest is skipped with the full probability, the first hardly; in evaluation none."""
    set_depth(detector, detector.stages, 2, drop_path=0.5)
    paths = [m for m in detector.backbone.modules() if isinstance(m, DropPath)]
    shares = [path.drop_prob for path in paths]
    assert shares == sorted(shares) and 0 < shares[0] < 0.05 and 0.45 < shares[-1] <= 0.5
    assert [path.training for path in paths] == [False] * 4 + [True] * (len(paths) - 4)
    pictures = batches()[0][0]

    def outputs() -> list[Tensor]:
        with torch.no_grad():
            return list(detector.features(pictures).values())

    one, other = outputs(), outputs()
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for depth, drop_path, mode in ((2, 0.0, True), (0, 0.5, True), (2, 0.5, False)):
        set_depth(detector, detector.stages, depth, drop_path=drop_path)
        detector.train(mode) if not mode else None
        one, other = outputs(), outputs()
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_norms_of_a_pretrained_head_keep_their_statistics_too() -> None:
    model = Model(detector="ssdlite320_mobilenet_v3_large", weights="none", image_size=64)
    detector = build(model, classes=2)
    norms = [m for m in detector.head.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for adapt in (False, True):
        set_depth(detector, detector.stages, 1, adapt_statistics=adapt)
        assert norms and {norm.training for norm in norms} == {adapt}


def test_norms_without_an_eps_never_adapt() -> None:
    detector = build(
        Model(detector="retinanet_resnet50_fpn", weights="none", image_size=64), classes=2
    )
    set_depth(detector, detector.stages, 5, adapt_statistics=True)
    norms = [m for m in detector.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training or norm.eps for norm in norms)
