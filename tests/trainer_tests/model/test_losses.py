"""Losses of a whole batch: torchvision's own, and nothing that a GPU would be asked for."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from trainer.config import Model
from trainer.model.detectors import Detector, build
from trainer.model.heads import Outputs
from trainer.model.losses import LARGEST, PAIRS, Targets, _iou, gather

SIZE, CLASSES = 96, 5


def some_targets(draw: torch.Generator) -> Targets:
    """Many boxes, none, one as large as the canvas, one below any anchor, two in one place."""
    corner = torch.rand(12, 2, generator=draw) * 0.7 * SIZE
    side = 2 + torch.rand(12, 2, generator=draw) * 0.3 * SIZE
    labels = torch.randint(1, CLASSES + 1, (12,), generator=draw)
    twice = torch.tensor([[10.0, 20.0, 50.0, 60.0]]).repeat(2, 1)
    return [
        {"boxes": torch.cat([corner, corner + side], dim=1).clamp(max=SIZE), "labels": labels},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
        {"boxes": torch.tensor([[0.0, 0.0, SIZE, SIZE]]), "labels": torch.tensor([CLASSES])},
        {"boxes": torch.tensor([[40.0, 40.0, 40.4, 40.2]]), "labels": torch.tensor([1])},
        {"boxes": twice, "labels": torch.tensor([1, 2])},
    ]


def detector_of(name: str) -> Detector:
    torch.manual_seed(0)
    return build(Model(detector=name, weights="none", image_size=SIZE), CLASSES)


def outputs_of(detector: Detector, draw: torch.Generator) -> dict[str, Tensor]:
    """Outputs of a head for five pictures, from sure to hardly decided, wrong ones too."""
    pictures = torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8)
    with torch.no_grad():
        found = detector.head.head(list(detector.eval().features(pictures).values()))
    return {name: out + 4 * torch.randn(out.shape, generator=draw) for name, out in found.items()}


def anchors_of(detector: Detector) -> list[Tensor]:
    seen: list[list[Tensor]] = []

    def listen(module: Any, inputs: Any, found: list[Tensor]) -> None:
        seen.append(found)

    detector.head.anchor_generator.register_forward_hook(listen)
    detector.eval()(torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8))
    return seen[0]


def losses_and_gradients(
    loss: Any, outputs: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    own = {name: out.detach().clone().requires_grad_() for name, out in outputs.items()}
    found = loss(dict(own))
    torch.stack(list(found.values())).sum().backward()
    return {n: loss.detach() for n, loss in found.items()}, {n: o.grad for n, o in own.items()}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name in found:
        torch.testing.assert_close(found[name], wanted[name], rtol=2e-5, atol=2e-8)


def losses_of(detector: Detector) -> Any:
    """The head's own, by the outputs of its convolutions and the targets."""
    pictures = torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8)
    sizes = detector.outputs(pictures).sizes

    def losses(outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        found = detector.head.alike(Outputs(outputs, sizes), pictures, gather(targets))
        return detector.head.losses(found, pictures, targets)

    return losses


def retinanet(box_loss: str) -> tuple[Detector, Any, Any]:
    detector = detector_of("retinanet")
    head: Any = detector.head
    head.head.regression_head._loss_type = box_loss
    head.box_weight = 1.0
    anchors = anchors_of(detector)

    def theirs(outputs: dict[str, Tensor], targets: Targets) -> Any:
        return RetinaNet.compute_loss(head, targets, outputs, anchors)

    return detector, losses_of(detector), theirs


def fcos() -> tuple[Detector, Any, Any]:
    detector = detector_of("fcos")
    head: Any = detector.head
    anchors, levels = anchors_of(detector), [(SIZE // s) ** 2 for s in (8, 16, 32)] + [4, 1]

    def theirs(outputs: dict[str, Tensor], targets: Targets) -> Any:
        return FCOS.compute_loss(head, targets, outputs, anchors, levels)

    return detector, losses_of(detector), theirs


def ssd() -> tuple[Detector, Any, Any]:
    detector = detector_of("ssd")
    head: Any = detector.head
    anchors = anchors_of(detector)

    def theirs(outputs: dict[str, Tensor], targets: Targets) -> Any:
        none = torch.full((len(anchors[0]),), -1)
        matches = [
            head.proposal_matcher(box_iou(own["boxes"], anchors[0])) if len(own["boxes"]) else none
            for own in targets
        ]
        return SSD.compute_loss(head, targets, outputs, anchors, matches)

    return detector, losses_of(detector), theirs


KINDS = {"giou": lambda: retinanet("giou"), "l1": lambda: retinanet("l1"), "fcos": fcos, "ssd": ssd}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_torchvisions(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, ours, theirs = KINDS[kind]()
    draw = torch.Generator().manual_seed(1)
    for _ in range(3):
        targets, outputs = some_targets(draw), outputs_of(detector, draw)
        wanted, slopes = losses_and_gradients(lambda own: theirs(own, targets), outputs)  # noqa: B023
        assert all(loss > 0 for loss in wanted.values())
        found, own_slopes = losses_and_gradients(lambda own: ours(own, targets), outputs)  # noqa: B023
        assert_same(found, wanted)
        assert_same(own_slopes, slopes)
        # as on a GPU: all pictures at once, and all anchors instead of those that found a box
        with monkeypatch.context() as patched:
            patched.setitem(PAIRS, "cpu", PAIRS["cuda"])
            patched.setattr("trainer.model.losses._where", lambda foreground: (slice(None),) * 2)
            found, own_slopes = losses_and_gradients(lambda own: ours(own, targets), outputs)  # noqa: B023
        assert_same(found, wanted)
        assert_same(own_slopes, slopes)


@pytest.mark.parametrize("kind", KINDS)
def test_what_fills_up_a_batch_loses_nothing(kind: str) -> None:
    detector, ours, _ = KINDS[kind]()
    draw = torch.Generator().manual_seed(1)
    targets, outputs = some_targets(draw), outputs_of(detector, draw)
    wanted, slopes = losses_and_gradients(lambda own: ours(own, targets), outputs)
    more = {name: torch.cat([out, out[:2]]) for name, out in outputs.items()}
    sizes = detector.outputs(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)).sizes
    truth = gather(targets).filled_up(7, 32)
    found, own_slopes = losses_and_gradients(
        lambda own: detector.head.alike(
            Outputs(own, sizes), torch.zeros(7, 3, SIZE, SIZE, dtype=torch.uint8), truth
        ),
        more,
    )
    assert_same(found, wanted)
    assert_same({name: slope[:5] for name, slope in own_slopes.items()}, slopes)
    assert all((slope[5:] == 0).all() for slope in own_slopes.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_a_box_has_only_the_loss_of_background(kind: str) -> None:
    detector, ours, theirs = KINDS[kind]()
    draw = torch.Generator().manual_seed(1)
    empty = [some_targets(draw)[1]] * 5
    outputs = outputs_of(detector, draw)
    found, slopes = losses_and_gradients(lambda own: ours(own, empty), outputs)
    assert_same(found, losses_and_gradients(lambda own: theirs(own, empty), outputs)[0])
    # SSD counts background beside foreground alone
    assert found["classification"] > 0 or kind == "ssd"
    assert all(torch.isfinite(slope).all() for slope in slopes.values())


def test_sizes_beyond_what_a_decoder_takes_are_cut() -> None:
    _, ours, theirs = retinanet("giou")
    detector, draw = detector_of("retinanet"), torch.Generator().manual_seed(1)
    outputs = outputs_of(detector, draw)
    outputs["bbox_regression"] = torch.full_like(outputs["bbox_regression"], 2 * LARGEST)
    targets = some_targets(draw)
    found = losses_and_gradients(lambda own: ours(own, targets), outputs)
    wanted = losses_and_gradients(lambda own: theirs(own, targets), outputs)
    assert_same(found[0], wanted[0])
    assert_same(found[1], wanted[1])


def test_iou_has_the_bits_of_torchvisions() -> None:
    draw = torch.Generator().manual_seed(0)
    boxes, others = some_targets(draw)[0]["boxes"], some_targets(draw)[0]["boxes"]
    assert torch.equal(_iou(boxes, others), box_iou(boxes, others))


@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])
def test_a_step_asks_the_device_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device without memory, where whatever depends on a value is an error: so is then what a
    GPU's host would wait for."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # that has none
    detector = detector_of(name).to("meta").train()
    targets = [
        {key: value.to("meta") for key, value in own.items()}
        for own in some_targets(torch.Generator().manual_seed(0))
    ]
    losses = detector(torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8, device="meta"), targets)
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in detector.head.parameters())
