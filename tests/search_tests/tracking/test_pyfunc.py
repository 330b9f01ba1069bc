"""The model that MLflow serves: it reads pictures as training does, and refuses the rest."""

import ast
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image, ImageCms

from search.tracking import pyfunc
from trainer.data import pixels as trainer_pixels
from trainer.data.canvas import to_canvas
from trainer.data.pixels import to_rgb


@pytest.mark.parametrize("size", [(96, 72), (31, 200), (640, 3)])
def test_the_canvas_is_that_of_training(size: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    canvas, scale = pyfunc._to_canvas(picture, 96)
    expected = to_canvas(picture, 96)
    assert (canvas == expected.pixels).all()
    assert scale.tolist() == [*expected.scale, *expected.scale]


def test_transparent_pixels_are_those_of_training() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    opened = np.asarray(pyfunc._open_picture(stream.getvalue(), 0), dtype=int)
    trained = np.asarray(to_rgb(Image.fromarray(pixels)), dtype=int)
    assert np.abs(opened - trained).max() <= 1


def test_pixels_of_more_than_8_bits_are_refused() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((9, 7), 999, np.uint16)).save(stream, "PNG")
    with pytest.raises(MlflowException, match="more than 8 bits a channel"):
        pyfunc._open_picture(stream.getvalue(), 0)


def test_bytes_that_are_no_picture_are_refused() -> None:
    with pytest.raises(MlflowException, match=r"row 2: no readable picture .no kind that is known"):
        pyfunc._open_picture(b"text", 2)


def picture_bytes(size: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("1", size).save(stream, "PNG")
    return stream.getvalue()


def test_a_request_has_limits_of_rows_pixels_and_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    huge = picture_bytes((10_000, 5_001))  # 7 kB
    with pytest.raises(MlflowException, match=r"row 3: .*50010000 pixels .legal: at most 50000000"):
        pyfunc._open_picture(huge, 3)
    monkeypatch.setattr(pyfunc, "MOST_PIXELS", 12)
    assert pyfunc._open_picture(picture_bytes((4, 3)), 0).size == (4, 3)
    with pytest.raises(MlflowException, match="pixels"):
        pyfunc._open_picture(picture_bytes((13, 1)), 0)
    monkeypatch.setattr(pyfunc, "MOST_BYTES", 9)
    with pytest.raises(MlflowException, match=r"bytes .legal: at most 9"):
        pyfunc._open_picture(picture_bytes((4, 3)), 0)
    rows = pd.DataFrame({"picture": [b""] * (pyfunc.MOST_ROWS + 1)})
    with pytest.raises(MlflowException, match=r"65 rows .legal: 1 to 64"):
        pyfunc.DetectorModel().predict(cast(Any, None), rows)


def test_formats_that_training_does_not_read_are_refused() -> None:
    with pytest.raises(MlflowException, match="no kind that is known"):
        pyfunc._open_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", 0)
    assert pyfunc.FORMATS == trainer_pixels.FORMATS


def test_broken_exif_is_ignored_as_in_training() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 4)).save(stream, "JPEG", exif=b"Exif\0\0nonsense")
    assert pyfunc._open_picture(stream.getvalue(), 0).size == (8, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_tiff_is_read_as_in_training(orientation: int) -> None:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture = Image.new("RGB", (8, 4))
    picture.paste("red", (0, 0, 3, 2))
    picture.save(stream, "TIFF", exif=exif)
    ours, theirs = pyfunc._open_picture(stream.getvalue(), 0), to_rgb(Image.open(stream))
    assert (ours.size, ours.tobytes()) == (theirs.size, theirs.tobytes())


@pytest.mark.parametrize("profile", ["sRGB", "LAB", None])
def test_cmyk_is_converted_as_in_training(profile: Literal["sRGB", "LAB"] | None) -> None:
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile(profile)) if profile else None
    stream = io.BytesIO()
    picture = Image.new("CMYK", (8, 4), (200, 30, 90, 10))
    picture.save(stream, "JPEG", icc_profile=made.tobytes() if made else None)
    opened = pyfunc._open_picture(stream.getvalue(), 0)
    assert opened.tobytes() == to_rgb(Image.open(stream)).tobytes()


def test_the_file_imports_nothing_of_this_project() -> None:
    tree = ast.parse(Path(pyfunc.__file__).read_text())
    names = [alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names]
    modules = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert all(not module.level for module in modules)
    names += [str(module.module) for module in modules]
    assert not {name.split(".")[0] for name in names} & {"trainer", "search", "clusters"}


def test_boxes_are_in_the_pictures_pixels_and_over_the_threshold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = {
        "model": {"image_size": 96},
        "categories": [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}],
        "thresholds": {"red": 0.5, "blue": 0.2},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))

    class Session:
        """Finds the same boxes on every canvas; a score of 0 fills up the rows."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def run(self, _: None, inputs: dict[str, Any]) -> list[Any]:
            assert inputs["pictures"].shape == (1, 96, 96, 3)
            boxes = np.array([[[0, 0, 48, 24], [8, 8, 16, 16], [48, 0, 200, 24], [0, 0, 0, 0]]])
            return [boxes, np.array([[1, 1, 2, 1]]), np.array([[0.9, 0.4, 0.3, 0.0]])]

    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    model = pyfunc.DetectorModel()
    artifacts = {"onnx": "model.onnx", "spec": str(tmp_path / "spec.json")}
    context = cast(Any, SimpleNamespace(artifacts=artifacts))
    model.load_context(context)
    rows = pd.DataFrame({"picture": [picture_bytes((192, 96))]})
    (boxes,) = model.predict(context, rows)
    assert [(box["name"], box["category_id"], box["score"]) for box in boxes] == [
        ("red", 3, 0.9),
        ("blue", 7, 0.3),
    ]
    assert [box["bbox"] for box in boxes] == [[0, 0, 96, 48], [96, 0, 96, 48]]
