"""A one-file export agrees with its original, or no file is left."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

from trainer.config import InputError, Model
from trainer.data.dataset import Splits
from trainer.export import conversion
from trainer.export.conversion import open_portable, unmatched, write_portable
from trainer.model.detectors import HEADS, Detector, build
from trainer.model.heads import DEFAULT_DETECTIONS, Detections

SIZE = 96


def new(name: Any = "retinanet") -> Detector:
    torch.manual_seed(0)
    detector = build(Model(detector=name, weights="none", image_size=SIZE), 2)
    if name in {
        "retinanet",
        "fcos",
    }:  # so that every class is detected, as new heads of the other kinds do
        with torch.no_grad():
            detector.get_parameter("head.head.classification_head.cls_logits.bias").zero_()
    return detector.eval()


def picture_detections(*scores: float, shift: float = 0.0, label: int = 1) -> dict[str, Tensor]:
    boxes = torch.tensor([[40.0 * i, 0.0, 40.0 * i + 30, 30.0] for i in range(len(scores))])
    return {
        "boxes": boxes.reshape(-1, 4) + shift,
        "labels": torch.full((len(scores),), label),
        "scores": torch.tensor(scores),
    }


# -- agreement ------------------------------------------------------------------------------------


def test_equal_boxes_in_any_order_agree() -> None:
    ours, theirs = picture_detections(0.9, 0.5), picture_detections(0.9, 0.5)
    theirs = {name: value.flip(0) for name, value in theirs.items()}
    assert len(unmatched(ours, theirs)) == 0


@pytest.mark.parametrize(
    "other",
    [
        picture_detections(0.9),
        picture_detections(0.9, 0.502),
        picture_detections(0.9, 0.5, shift=0.2),
        picture_detections(0.9, 0.5, label=2),
        picture_detections(),
    ],
    ids=["fewer", "score", "place", "class", "none"],
)
def test_a_box_without_an_equal_is_returned(other: dict[str, Tensor]) -> None:
    assert 1 in unmatched(picture_detections(0.9, 0.5), other)


def test_a_box_that_rounding_may_drop_is_not_returned() -> None:
    assert (
        len(unmatched(picture_detections(0.9, 0.0205), picture_detections(0.9))) == 0
    )  # at the threshold
    many = [0.9 - 0.001 * i for i in range(DEFAULT_DETECTIONS)]
    full, other = picture_detections(*many), picture_detections(*many)
    other["boxes"][-1] += 100  # the last of a full list
    assert len(unmatched(full, other)) == 0
    other["boxes"][3] += 100
    assert unmatched(full, other).tolist() == [3]
    assert unmatched(full, other, 300).tolist() == [3, 99]  # the list could have more


def test_a_file_with_other_detections_is_deleted(
    tmp_path: Path, tiny: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(conversion.WRITERS, "onnx", lambda graph, size, file: file.touch())

    def blind(pictures: Tensor) -> Detections:
        return [picture_detections()]

    monkeypatch.setitem(conversion.OPENERS, "onnx", lambda file: blind)
    with pytest.raises(InputError) as error:
        write_portable(new(), SIZE, "onnx", tmp_path, tiny.val.pictures[:2])
    assert "not written, since it differs from the original" in error.value.errors[0]
    assert error.value.errors[1].startswith("val-00.png: ")
    assert "boxes of the original have no equal" in error.value.errors[1]
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_no_file_and_names_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(graph: Any, size: int, file: Path) -> None:
        file.touch()
        raise NotImplementedError("no such operator\nand pages more")

    monkeypatch.setitem(conversion.WRITERS, "pt2", fail)
    with pytest.raises(InputError, match=r"--format pt2: NotImplementedError: no such operator$"):
        write_portable(new(), SIZE, "pt2", tmp_path, ())
    assert list(tmp_path.iterdir()) == []


def test_opening_an_empty_folder_gives_none_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert open_portable(tmp_path) is None
    (tmp_path / "model.onnx").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"model\.onnx cannot be read: "):
        open_portable(tmp_path)


class Top(torch.nn.Module):
    """A minimal module with a graph's inputs and outputs."""

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, labels = pictures.float().mean(dim=(1, 2)).topk(2)
        return torch.stack([scores] * 4, dim=-1), labels, scores


def test_an_onnx_file_has_the_version_in_its_card_and_no_paths(
    tmp_path: Path,
) -> None:
    file = tmp_path / "model.onnx"
    with conversion._quiet():
        conversion._write_onnx(Top(), 32, file)  # type: ignore[arg-type]
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == conversion.IR_VERSION == 9
    # both were new in onnxruntime 1.17: another of either changes what the card may say
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    assert conversion.LEAST_ONNXRUNTIME == "1.17"
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    assert not any(part.metadata_props for part in (model, graph, *graph.node, *values))
    assert __file__.encode() not in file.read_bytes()
    detect = open_portable(tmp_path)
    assert detect is not None
    (one,) = detect(torch.arange(3, dtype=torch.uint8)[None, :, None, None].expand(1, 3, 32, 32))
    assert one["scores"].tolist() == [2.0, 1.0] and one["labels"].tolist() == [2, 1]


# -- real files -----------------------------------------------------------------------------------


@pytest.mark.slow  # each export takes 10 to 60 seconds
@pytest.mark.parametrize("format", ["onnx", "pt2"])
@pytest.mark.parametrize("name", HEADS)
def test_a_file_takes_any_number_of_pictures(
    name: str, format: str, tmp_path: Path, tiny: Splits
) -> None:
    detector = new(name)
    write_portable(detector, SIZE, format, tmp_path, tiny.val.pictures)
    assert [file.name for file in tmp_path.iterdir()] == [f"model.{format}"]
    detect = open_portable(tmp_path / f"model.{format}")
    assert detect is not None
    for count in (1, 2, 5):
        pictures = torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8)
        with torch.no_grad():
            pairs = zip(detector(pictures), detect(pictures), strict=True)
        for ours, theirs in pairs:
            assert len(unmatched(ours, theirs)) == len(unmatched(theirs, ours)) == 0
