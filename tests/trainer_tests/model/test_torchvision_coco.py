"""torchvision's COCO detectors: its outputs and tensors are kept, class layers are new."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from trainer.config import CocoDetector, InputError, Model
from trainer.data.dataset import Category
from trainer.evaluation.predict import predict
from trainer.model.detectors import Detector, build
from trainer.model.freezing import set_depth

SMALLEST = {"ssd300_vgg16": 288}
FROZEN = {
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
}
"""Trained with norms whose weights are buffers and which count no batches."""
LIGHT = "ssdlite320_mobilenet_v3_large"
EVERYDAY = {"retinanet_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn", LIGHT}
"""Norms without an eps, two maps of one stride, a reduced tail: the others are slow tests."""
NAMES = [
    pytest.param(name, marks=[] if name in EVERYDAY else [pytest.mark.slow])
    for name in get_args(CocoDetector)
]


def file_content(name: str) -> dict[str, Tensor]:
    """Tensors as in torchvision's file, with variances so small that the eps of norms matters."""
    torch.manual_seed(1)
    builder: Any = getattr(torchvision.models.detection, name)
    model = builder(weights=None, weights_backbone=None, num_classes=91)
    state: dict[str, Tensor] = model.state_dict()
    for key in list(state):
        if key.endswith("running_var"):
            state[key] = 1e-4 * (1 + torch.rand_like(state[key]))
            scale = key.replace("running_var", "weight")
            state[scale] = 1e-2 * (1 + torch.rand_like(state[scale]))
            state[key.replace("running_var", "bias")] = 0.1 * torch.randn_like(state[key])
        elif name in FROZEN and key.endswith("num_batches_tracked"):
            del state[key]
    return state


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A function that puts a file with torchvision's name into a temporary torch cache."""

    def make(name: str) -> Path:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        file = folder / "weights.pth"
        torch.save(file_content(name), file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        file = file.rename(folder / f"{name}_coco-{digest[:8]}.pth")
        weights: Any = torchvision.models.get_model_weights(name)
        monkeypatch.setattr(weights.COCO_V1.value, "url", f"https://localhost:9/{file.name}")
        return file

    return make


def ours(name: str, weights: str, classes: int = 2) -> Detector:
    torch.manual_seed(0)
    size = SMALLEST.get(name, 96)
    model = Model.model_validate({"detector": name, "weights": weights, "image_size": size})
    return build(model, classes).eval()


def pixels(name: str) -> Tensor:
    size = SMALLEST.get(name, 96)
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=draw)


@torch.no_grad()
def raw(model: Any, levels: list[Tensor]) -> Iterator[Tensor]:
    """Outputs of a head's kept layers for a pyramid."""
    if hasattr(model, "roi_heads"):
        for outputs in model.rpn.head(levels):
            yield from outputs
        pooled = levels[0][:, :, :7, :7].reshape(1, -1)[:, : 256 * 9]
        square = pooled.reshape(1, 256, 3, 3).repeat(1, 1, 3, 3)[:, :, :7, :7]
        yield model.roi_heads.box_head(square)
    else:
        outputs = model.head.regression_head(levels)
        yield from outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("name", NAMES)
def test_kept_layers_give_torchvisions_outputs(name: str, cached: Callable[[str], Path]) -> None:
    """Depends on frozen norms, their eps, SSDlite's tail, where VGG is cut, mean and std."""
    cached(name)
    builder: Any = getattr(torchvision.models.detection, name)
    theirs = builder(weights="COCO_V1", progress=False).eval()
    detector = ours(name, "coco", classes=90)
    with torch.no_grad():
        image = pixels(name) / 255
        mean, std = (
            torch.tensor(v).reshape(1, 3, 1, 1)
            for v in (theirs.transform.image_mean, theirs.transform.image_std)
        )
        expected = list(theirs.backbone((image - mean) / std).values())
        levels = list(detector.features(pixels(name)).values())
    pairs = [*zip(levels, expected, strict=True)]
    pairs += zip(raw(detector.head, expected), raw(theirs, expected), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3 * float(other.abs().max()))


def hashes(state: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: t.contiguous().numpy().tobytes() for name, t in state.items()}


CLASS_LAYERS = {
    "fasterrcnn": {f"roi_heads.box_predictor.{layer}" for layer in ("cls_score", "bbox_pred")},
    "retinanet": {"head.classification_head.cls_logits"},
    "fcos": {"head.classification_head.cls_logits"},
    "ssd300": {f"head.classification_head.module_list.{i}" for i in range(6)},
    "ssdlite320": {f"head.classification_head.module_list.{i}.1" for i in range(6)},
}


@pytest.mark.parametrize("name", NAMES)
def test_only_the_class_layers_are_new(name: str, cached: Callable[[str], Path]) -> None:
    file = cached(name)
    kept = set(hashes(torch.load(file)).values())
    layers = CLASS_LAYERS[name.split("_")[0]]
    expected = {f"head.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    detector = ours(name, "coco", classes=2)
    changed = {
        key
        for key, content in hashes(detector.state_dict()).items()
        if content not in kept and not key.endswith("num_batches_tracked")
    }
    assert changed == expected
    assert detector.digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_new_class_layers_follow_from_the_seed(
    cached: Callable[[str], Path],
) -> None:
    cached(LIGHT)
    one, same = (hashes(ours(LIGHT, "coco").state_dict()) for _ in range(2))
    assert one == same


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_gives_the_same_tensors_as_the_cache(tmp_path: Path, suffix: str) -> None:
    state = file_content(LIGHT)
    file = tmp_path / f"mine.{suffix}"
    if suffix == "pth":
        torch.save({"model": state}, file)
    else:
        save_file(state, file)
    kept = set(hashes(state).values())
    loaded = hashes(ours(LIGHT, str(file)).state_dict())
    assert sum(content not in kept for content in loaded.values()) == 12


def test_a_file_for_other_classes_is_loaded(tmp_path: Path) -> None:
    builder = torchvision.models.detection.ssdlite320_mobilenet_v3_large
    torch.save(
        builder(weights=None, weights_backbone=None, num_classes=4).state_dict(), tmp_path / "a.pth"
    )
    ours(LIGHT, str(tmp_path / "a.pth"))


def test_a_file_of_another_detector_is_refused_with_the_tensors_that_differ(tmp_path: Path) -> None:
    torch.save(file_content("retinanet_resnet50_fpn"), tmp_path / "a.pth")
    with pytest.raises(InputError) as raised:
        ours("fcos_resnet50_fpn", str(tmp_path / "a.pth"))
    (error,) = raised.value.errors
    assert error.startswith(f"model.weights: {tmp_path / 'a.pth'} does not fit fcos_resnet50_fpn: ")
    assert "it lacks, or has in another shape, head." in error
    assert error.endswith("give a checkpoint of torchvision's fcos_resnet50_fpn")


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn"])
def test_files_from_before_torchvision_0_13_are_loaded(tmp_path: Path, name: str) -> None:
    """Such a file names no version in a .safetensors. torchvision's real files are that old."""
    state = file_content(name)
    old = {}
    for key, tensor in state.items():
        place = key.split(".")
        if "_head.conv." in key:  # conv.1.0.weight was conv.2.weight
            place[3:5] = [str(2 * int(place[3]))]
        elif key.startswith("rpn.head.conv."):
            place = ["rpn", "head", "conv", place[-1]]
        elif "inner_blocks" in key or "layer_blocks" in key:
            place.pop(-2)
        old[".".join(place)] = tensor
    assert old.keys() != state.keys()
    save_file(old, tmp_path / "old.safetensors")
    torch.save(state, tmp_path / "new.pth")
    assert hashes(ours(name, str(tmp_path / "old.safetensors")).state_dict()) == hashes(
        ours(name, str(tmp_path / "new.pth")).state_dict()
    )


# -- by name --------------------------------------------------------------------------------------


def test_a_file_that_is_not_in_the_cache_is_fetched_completely_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: Callable[[str], Path]
) -> None:
    file = cached(LIGHT)
    away = file.rename(tmp_path / file.name)
    weights: Any = torchvision.models.get_model_weights(LIGHT)
    monkeypatch.setattr(weights.COCO_V1.value, "url", away.as_uri())
    ours(LIGHT, "coco")
    assert file.read_bytes() == away.read_bytes()
    file.unlink()
    away.write_bytes(away.read_bytes()[:-1])  # torn on the way
    with pytest.raises(InputError, match=r"cannot be fetched.*Bring the file to"):
        ours(LIGHT, "coco")
    assert not file.exists()


def test_without_a_network_the_error_says_where_to_bring_the_file(
    cached: Callable[[str], Path],
) -> None:
    file = cached(LIGHT)
    file.unlink()
    with pytest.raises(InputError) as raised:
        ours(LIGHT, "coco")
    (error,) = raised.value.errors
    assert error.startswith(f"model.weights: https://localhost:9/{file.name} cannot be fetched (")
    assert error.endswith(f"Bring the file to {file}, or give its path as model.weights")


def test_a_damaged_file_in_the_cache_is_refused(cached: Callable[[str], Path]) -> None:
    file = cached(LIGHT)
    named = file.rename(file.with_name(file.name.replace("coco-", "coco-a")[:-5] + ".pth"))
    weights: Any = torchvision.models.get_model_weights(LIGHT)
    weights.COCO_V1.value.url = f"https://localhost:9/{named.name}"  # until the fixture ends
    with pytest.raises(InputError, match="is not what its name says: its SHA-256 begins with"):
        ours(LIGHT, "coco")


# -- what does not go together -------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 90])
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_classes_and_pictures_without_boxes_can_be_learned_from(
    name: str, classes: int
) -> None:
    detector = ours(name, "none", classes)
    set_depth(detector, detector.stages, 1)
    boxes = torch.tensor([[4.0, 8.0, 60.0, 64.0], [20.0, 8.0, 40.0, 30.0]])
    full = {"boxes": boxes, "labels": torch.tensor([classes, 1])}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    for targets in ([full, empty], [empty, empty]):
        detector.zero_grad()
        losses = detector(pixels(name).repeat(2, 1, 1, 1), targets)
        assert all(torch.isfinite(loss) for loss in losses.values())
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in detector.parameters() if p.grad is not None]
        assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("ids", [(0, 5, 17), (1,), tuple(range(90))], ids=len)
@pytest.mark.parametrize("name", NAMES)
def test_category_ids_come_out_as_they_went_in(name: str, ids: tuple[int, ...]) -> None:
    detector = ours(name, "none", len(ids))
    with torch.no_grad():
        for layer, tensor in detector.head.named_parameters():
            if layer.endswith("bias") and ("classification" in layer or "cls_score" in layer):
                tensor.normal_(std=3)  # or everything would be nothing, or one class of ninety
        (detections,) = detector(pixels(name))
    picture = Image.fromarray(pixels(name)[0].permute(1, 2, 0).numpy())
    categories = tuple(Category(i, f"class {i}") for i in ids)
    boxes = predict(detector, categories, picture, picture.width, threshold=0.0)
    assert len(boxes) == len(detections["labels"]) > 0
    assert [box.category.id for box in boxes] == [ids[label - 1] for label in detections["labels"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detector": LIGHT}, f"model.weights: imagenet (legal for {LIGHT}: coco, none, a file"),
        ({"weights": "coco"}, "model.weights: coco goes with torchvision's detectors"),
        (
            {"detector": "ssd300_vgg16", "weights": "none", "image_size": 256},
            "model.image_size: 256 (legal for ssd300_vgg16: at least 288)",
        ),
        ({"detector": LIGHT, "weights": "gone.pth"}, "model.weights: no file or folder gone.pth"),
    ],
)
def test_impossible_models_are_refused_with_what_is_legal(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as raised:
        build(Model.model_validate(changes), 2)
    (error,) = raised.value.errors
    assert error.startswith(message)
