"""Losses of a batch equal torchvision's, and no value is read back from the device."""

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
from trainer.model.heads import HeadOutputs
from trainer.model.losses import MAX_LOG_SIZE
from trainer.model.matching import MAX_PAIRS, Targets, pad_targets

SIZE, CLASSES = 96, 5


def some_targets(draw: torch.Generator) -> Targets:
    """Pictures with many boxes, none, one of the canvas's size, a tiny one, two in one place."""
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
    model = {"detector": name, "weights": "none", "image_size": SIZE}
    return build(Model.model_validate(model), CLASSES)


def outputs_of(detector: Detector, draw: torch.Generator) -> dict[str, Tensor]:
    """Outputs of a head for five pictures, with noise: certain, uncertain and wrong ones."""
    pictures = torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8)
    head: Any = detector.head
    with torch.no_grad():
        results = head.head(list(detector.eval().features(pictures).values()))
    return {name: out + 4 * torch.randn(out.shape, generator=draw) for name, out in results.items()}


def anchors_of(detector: Detector) -> list[Tensor]:
    seen: list[list[Tensor]] = []

    def listen(module: Any, inputs: Any, anchors: list[Tensor]) -> None:
        seen.append(anchors)

    head: Any = detector.head
    head.anchor_generator.register_forward_hook(listen)
    detector.eval()(torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8))
    return seen[0]


def losses_and_gradients(
    loss: Any, outputs: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    inputs = {name: out.detach().clone().requires_grad_() for name, out in outputs.items()}
    losses = loss(dict(inputs))
    total = torch.stack(list(losses.values())).sum()
    gradients = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
    return (
        {name: loss.detach() for name, loss in losses.items()},
        dict(zip(inputs, gradients, strict=True)),
    )


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name in actual:
        torch.testing.assert_close(actual[name], expected[name], rtol=2e-5, atol=2e-8)


def losses_of(detector: Detector) -> Any:
    """The head's losses as a function of its convolutions' outputs and of targets."""
    pictures = torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8)
    sizes = detector.outputs(pictures).sizes

    def losses(outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        static = detector.head.static_losses(
            HeadOutputs(outputs, sizes), pictures, pad_targets(targets)
        )
        return detector.head.losses(static, pictures, targets)

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
            head.proposal_matcher(box_iou(target["boxes"], anchors[0]))
            if len(target["boxes"])
            else none
            for target in targets
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
        expected, expected_gradients = losses_and_gradients(lambda o: theirs(o, targets), outputs)  # noqa: B023
        assert all(loss > 0 for loss in expected.values())
        losses, gradients = losses_and_gradients(lambda o: ours(o, targets), outputs)  # noqa: B023
        assert_same(losses, expected)
        assert_same(gradients, expected_gradients)
        # as on a GPU: all pictures at once, and all anchors instead of the foreground
        with monkeypatch.context() as patched:
            patched.setitem(MAX_PAIRS, "cpu", MAX_PAIRS["cuda"])
            patched.setattr(
                "trainer.model.losses._foreground_index", lambda foreground: (slice(None),) * 2
            )
            losses, gradients = losses_and_gradients(lambda o: ours(o, targets), outputs)  # noqa: B023
        assert_same(losses, expected)
        assert_same(gradients, expected_gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_loss_and_has_no_gradient(kind: str) -> None:
    detector, ours, _ = KINDS[kind]()
    draw = torch.Generator().manual_seed(1)
    targets, outputs = some_targets(draw), outputs_of(detector, draw)
    expected, expected_gradients = losses_and_gradients(lambda o: ours(o, targets), outputs)
    more = {name: torch.cat([out, out[:2]]) for name, out in outputs.items()}
    sizes = detector.outputs(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)).sizes
    truth = pad_targets(targets).padded_to(7, 32)
    losses, gradients = losses_and_gradients(
        lambda o: detector.head.static_losses(
            HeadOutputs(o, sizes), torch.zeros(7, 3, SIZE, SIZE, dtype=torch.uint8), truth
        ),
        more,
    )
    assert_same(losses, expected)
    assert_same({name: gradient[:5] for name, gradient in gradients.items()}, expected_gradients)
    assert all((gradient[5:] == 0).all() for gradient in gradients.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_a_box_has_only_the_loss_of_background(kind: str) -> None:
    detector, ours, theirs = KINDS[kind]()
    draw = torch.Generator().manual_seed(1)
    empty = [some_targets(draw)[1]] * 5
    outputs = outputs_of(detector, draw)
    losses, gradients = losses_and_gradients(lambda o: ours(o, empty), outputs)
    assert_same(losses, losses_and_gradients(lambda o: theirs(o, empty), outputs)[0])
    # SSD counts background only next to foreground
    assert losses["classification"] > 0 or kind == "ssd"
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_sizes_beyond_the_decoders_limit_are_clamped() -> None:
    _, ours, theirs = retinanet("giou")
    detector, draw = detector_of("retinanet"), torch.Generator().manual_seed(1)
    outputs = outputs_of(detector, draw)
    outputs["bbox_regression"] = torch.full_like(outputs["bbox_regression"], 2 * MAX_LOG_SIZE)
    targets = some_targets(draw)
    results = losses_and_gradients(lambda o: ours(o, targets), outputs)
    expected = losses_and_gradients(lambda o: theirs(o, targets), outputs)
    assert_same(results[0], expected[0])
    assert_same(results[1], expected[1])


@pytest.mark.parametrize("ignores", [False, True])
@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])
def test_a_step_reads_no_value_back_from_the_device(
    name: str, ignores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, reading a value is an error; on a GPU, its host would wait for it."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # that has none
    detector = detector_of(name).to("meta").train()
    targets = some_targets(torch.Generator().manual_seed(0))
    targets = [
        {key: value.to("meta") for key, value in target.items()}
        for target in (with_ignored(targets) if ignores else targets)
    ]
    losses = detector(torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8, device="meta"), targets)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in detector.head.parameters())


# -- ignored boxes ---------------------------------------------------------------------------------


def with_ignored(targets: Targets) -> Targets:
    """The targets with ignored boxes of two sizes, also in the second picture, which has no box."""
    ignored = torch.tensor([[50.0, 50.0, 90.0, 94.0], [4.0, 60.0, 9.0, 66.0]])
    return [
        {**target, "ignored": ignored} if i in {0, 1, 4} else target
        for i, target in enumerate(targets)
    ]


def inside(detector: Detector, target: dict[str, Tensor]) -> Tensor:
    """Which anchors or points lie at least half in an ignored box, computed one by one."""
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
def test_ignored_boxes_only_take_away_background(kind: str) -> None:
    detector, ours, _ = KINDS[kind]()
    draw = torch.Generator().manual_seed(1)
    targets, outputs = some_targets(draw), outputs_of(detector, draw)
    before, gradients_before = losses_and_gradients(lambda o: ours(o, targets), outputs)
    more = with_ignored(targets)
    losses, gradients = losses_and_gradients(lambda o: ours(o, more), outputs)
    assert torch.equal(losses["bbox_regression"], before["bbox_regression"])
    assert torch.equal(gradients["bbox_regression"], gradients_before["bbox_regression"])
    for i, target in enumerate(more):
        gone = inside(detector, target)
        of_objects = gradients["bbox_regression"][i].any(dim=1)
        assert not gradients["cls_logits"][i][gone & ~of_objects].any()
        kept = gradients["cls_logits"][i].any(dim=1)
        assert kept[of_objects].all()
        if "ignored" not in target:
            assert torch.equal(gradients["cls_logits"][i], gradients_before["cls_logits"][i])
        elif kind != "ssd":  # whose hardest background is another then
            assert kept.sum() > len(kept) / 2
            assert torch.equal(
                gradients["cls_logits"][i][kept], gradients_before["cls_logits"][i][kept]
            )


@pytest.mark.parametrize("kind", KINDS)
def test_the_anchor_of_a_small_ignored_box_is_no_background(kind: str) -> None:
    detector, ours, _ = KINDS[kind]()
    outputs = outputs_of(detector, torch.Generator().manual_seed(1))
    small = torch.tensor([[46.0, 46.0, 50.0, 50.0]])
    far = {"boxes": torch.tensor([[0.0, 0.0, 30.0, 30.0]]), "labels": torch.tensor([1])}
    as_object = {"boxes": torch.cat([far["boxes"], small]), "labels": torch.tensor([1, 2])}
    gradients = [
        losses_and_gradients(lambda o: ours(o, [one] * 5), outputs)[1]  # noqa: B023
        for one in (far, as_object, {**far, "ignored": small})
    ]
    (plain, objects, ignored) = (one["bbox_regression"][0].any(dim=1) for one in gradients)
    its_anchors = objects & ~plain
    assert its_anchors.any() and torch.equal(plain, ignored)
    assert not gradients[2]["cls_logits"][0][its_anchors].any()


@pytest.mark.parametrize("kind", KINDS)
def test_ignored_boxes_give_the_same_losses_on_a_gpu_and_with_padding(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, ours, _ = KINDS[kind]()
    draw = torch.Generator().manual_seed(1)
    targets, outputs = with_ignored(some_targets(draw)), outputs_of(detector, draw)
    expected, expected_gradients = losses_and_gradients(lambda o: ours(o, targets), outputs)
    monkeypatch.setitem(MAX_PAIRS, "cpu", MAX_PAIRS["cuda"])
    monkeypatch.setattr(
        "trainer.model.losses._foreground_index", lambda foreground: (slice(None),) * 2
    )
    sizes = detector.outputs(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)).sizes
    truth = pad_targets(targets).padded_to(5, 32)
    losses, gradients = losses_and_gradients(
        lambda o: detector.head.static_losses(
            HeadOutputs(o, sizes), torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8), truth
        ),
        outputs,
    )
    assert_same(losses, expected)
    assert_same(gradients, expected_gradients)
