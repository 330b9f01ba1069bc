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
from trainer.model.losses import LARGEST, PAIRS, _iou, gather
from trainer.model.matching import Targets

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


@pytest.mark.parametrize("ignores", [False, True])
@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])
def test_a_step_asks_the_device_for_nothing(
    name: str, ignores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device without memory, where whatever depends on a value is an error: so is then what a
    GPU's host would wait for."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # that has none
    detector = detector_of(name).to("meta").train()
    targets = some_targets(torch.Generator().manual_seed(0))
    targets = [
        {key: value.to("meta") for key, value in own.items()}
        for own in (with_ignored(targets) if ignores else targets)
    ]
    losses = detector(torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8, device="meta"), targets)
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in detector.head.parameters())


# -- boxes to ignore ------------------------------------------------------------------------------


def with_ignored(targets: Targets) -> Targets:
    """Beside them, in the second's empty picture too, boxes of several sizes to ignore."""
    ignored = torch.tensor([[50.0, 50.0, 90.0, 94.0], [4.0, 60.0, 9.0, 66.0]])
    return [{**own, "ignored": ignored} if i in {0, 1, 4} else own for i, own in enumerate(targets)]


def inside(detector: Detector, target: dict[str, Tensor]) -> Tensor:
    """Anchors or points that lie at least half in what is to be ignored, one by one."""
    anchors = anchors_of(detector)[0]
    if "ignored" not in target:
        return torch.zeros(len(anchors), dtype=torch.bool)
    return torch.tensor(
        [
            any(
                max(0.0, min(x2, right) - max(x1, left)) * max(0.0, min(y2, bottom) - max(y1, top))
                >= (x2 - x1) * (y2 - y1) / 2
                for left, top, right, bottom in target["ignored"].tolist()
            )
            for x1, y1, x2, y2 in anchors.tolist()
        ]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_to_be_ignored_is_no_background_and_all_else_as_before(kind: str) -> None:
    detector, ours, _ = KINDS[kind]()
    draw = torch.Generator().manual_seed(1)
    targets, outputs = some_targets(draw), outputs_of(detector, draw)
    before, slopes_before = losses_and_gradients(lambda own: ours(own, targets), outputs)
    more = with_ignored(targets)
    found, slopes = losses_and_gradients(lambda own: ours(own, more), outputs)
    assert torch.equal(found["bbox_regression"], before["bbox_regression"])
    assert torch.equal(slopes["bbox_regression"], slopes_before["bbox_regression"])
    for i, own in enumerate(more):
        gone = inside(detector, own)
        of_objects = slopes["bbox_regression"][i].any(dim=1)
        assert not slopes["cls_logits"][i][gone & ~of_objects].any()
        kept = slopes["cls_logits"][i].any(dim=1)
        assert kept[of_objects].all()
        if "ignored" not in own:
            assert torch.equal(slopes["cls_logits"][i], slopes_before["cls_logits"][i])
        elif kind != "ssd":  # whose hardest background is another then
            assert kept.sum() > len(kept) / 2
            assert torch.equal(slopes["cls_logits"][i][kept], slopes_before["cls_logits"][i][kept])


@pytest.mark.parametrize("kind", KINDS)
def test_the_anchor_of_a_box_to_ignore_is_no_background_however_small_the_box(kind: str) -> None:
    detector, ours, _ = KINDS[kind]()
    outputs = outputs_of(detector, torch.Generator().manual_seed(1))
    small = torch.tensor([[46.0, 46.0, 50.0, 50.0]])
    far = {"boxes": torch.tensor([[0.0, 0.0, 30.0, 30.0]]), "labels": torch.tensor([1])}
    as_object = {"boxes": torch.cat([far["boxes"], small]), "labels": torch.tensor([1, 2])}
    slopes = [
        losses_and_gradients(lambda own: ours(own, [one] * 5), outputs)[1]  # noqa: B023
        for one in (far, as_object, {**far, "ignored": small})
    ]
    (plain, objects, ignored) = (one["bbox_regression"][0].any(dim=1) for one in slopes)
    its_own = objects & ~plain
    assert its_own.any() and torch.equal(plain, ignored)
    assert not slopes[2]["cls_logits"][0][its_own].any()


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_to_ignore_are_the_same_on_a_gpu_and_in_a_batch_filled_up(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, ours, _ = KINDS[kind]()
    draw = torch.Generator().manual_seed(1)
    targets, outputs = with_ignored(some_targets(draw)), outputs_of(detector, draw)
    wanted, slopes = losses_and_gradients(lambda own: ours(own, targets), outputs)
    monkeypatch.setitem(PAIRS, "cpu", PAIRS["cuda"])
    monkeypatch.setattr("trainer.model.losses._where", lambda foreground: (slice(None),) * 2)
    sizes = detector.outputs(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)).sizes
    truth = gather(targets).filled_up(5, 32)
    found, own_slopes = losses_and_gradients(
        lambda own: detector.head.alike(
            Outputs(own, sizes), torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8), truth
        ),
        outputs,
    )
    assert_same(found, wanted)
    assert_same(own_slopes, slopes)


@pytest.mark.parametrize("name", ["retinanet", "fcos", "faster_rcnn", "ssd"])
def test_a_batch_of_nothing_but_what_is_to_be_ignored_teaches_no_background(name: str) -> None:
    detector = detector_of(name).train()
    wide = torch.tensor([[-500.0, -500.0, 600.0, 600.0]])
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = detector(
        torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8), [{**nothing, "ignored": wide}] * 2
    )
    assert all(loss == 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    slopes = [p.grad for p in detector.head.parameters() if p.grad is not None]
    assert slopes and not any(slope.any() for slope in slopes)


def test_proposals_in_a_box_to_ignore_are_learned_of_an_object_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = detector_of("faster_rcnn").train()
    head: Any = detector.head
    ignored, boxes = [[40.0, 40.0, 90.0, 90.0]], [[45.0, 45.0, 75.0, 75.0]]
    target = {"boxes": torch.tensor(boxes), "labels": torch.tensor([1])}
    marked = {**target, "ignored": torch.tensor(ignored)}
    learned: list[Tensor] = []
    select = head.roi_heads.select_training_samples

    def seen(proposals: list[Tensor], targets: Targets) -> Any:
        learned.extend(proposals)
        return select(proposals, targets)

    monkeypatch.setattr(head.roi_heads, "select_training_samples", seen)
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    losses = detector(pictures, [target, marked])
    assert all(torch.isfinite(loss) for loss in losses.values())
    x1, y1, x2, y2 = learned[1].T
    both = (x2.clamp(max=90) - x1.clamp(min=40)).clamp(min=0)
    both = both * (y2.clamp(max=90) - y1.clamp(min=40)).clamp(min=0)
    within = both >= 0.5 * (x2 - x1) * (y2 - y1)
    on_object = box_iou(learned[1], marked["boxes"])[:, 0] >= 0.5
    assert not (within & ~on_object).any() and len(learned[1]) > 10
    anchors = [torch.tensor([[42.0, 42.0, 60.0, 60.0], [0.0, 0.0, 20.0, 20.0], boxes[0]])] * 2
    labels, _ = head.rpn.assign_targets_to_anchors(anchors, [target, marked])
    assert [own.tolist() for own in labels] == [[0, 0, 1], [-1, 0, 1]]
