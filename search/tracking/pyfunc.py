"""The model that MLflow serves: pictures in, boxes out, by onnxruntime.

MLflow keeps this file as the model's code, and runs it where this project may not be installed. So
it imports nothing of this project. A test compares its canvas with `trainer/data/canvas.py`.
"""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, Schema
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

INPUTS = Schema([ColSpec(DataType.binary, "picture")])
"""A picture file's bytes, which in JSON are base64."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
"""Formats that are read: some of Pillow's other readers start programs."""
GREY = 114
"""The canvas around a picture, and the ground of transparent pixels, 0 to 255."""
ORIENTATION = 0x0112
"""EXIF's tag."""
MOST_ROWS, MOST_PIXELS, MOST_BYTES = 64, 50_000_000, 100_000_000
"""Limits of a request, of a picture, and of its file: no request may fill the memory."""


class DetectorModel(PythonModel):
    """Finds boxes in pictures whose score is at least the threshold of their class."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the artifacts `onnx` and `spec`."""
        self.spec = json.loads(Path(context.artifacts["spec"]).read_text())
        self.session = onnxruntime.InferenceSession(
            context.artifacts["onnx"], providers=["CPUExecutionProvider"]
        )

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """Find the boxes of each picture.

        Args:
            context: MLflow's, unused.
            model_input: rows with a column `picture`, a file's bytes each.
            params: unused.

        Returns:
            For each row a list of boxes, best first: name, category_id, score, and bbox as x, y,
            width, height in the picture's pixels.
        """
        if len(model_input) > MOST_ROWS:
            raise MlflowException.invalid_parameter_value(
                f"{len(model_input)} rows (legal: 1 to {MOST_ROWS}); send the rest in another "
                "request"
            )
        return [self._boxes(content, row) for row, content in enumerate(model_input["picture"])]

    def _boxes(self, content: bytes, row: int) -> list[dict[str, Any]]:
        picture = _open_picture(content, row)
        canvas, scale = _to_canvas(picture, self.spec["model"]["image_size"])
        outputs = self.session.run(None, {"pictures": canvas[None]})
        corners, labels, scores = (output[0] for output in outputs)
        used = scores > 0  # the export pads its output
        corners = (corners[used] / scale).clip(0, 2 * picture.size)
        boxes = []
        for (x1, y1, x2, y2), label, score in zip(
            corners.tolist(), labels[used].tolist(), scores[used].tolist(), strict=True
        ):
            category = self.spec["categories"][label - 1]
            if score >= self.spec["thresholds"][category["name"]]:
                boxes.append(
                    {
                        "name": category["name"],
                        "category_id": category["id"],
                        "score": score,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                    }
                )
        return boxes


def _open_picture(content: bytes, row: int) -> Image.Image:
    try:
        if len(content) > MOST_BYTES:
            raise ValueError(f"{len(content)} bytes (legal: at most {MOST_BYTES})")
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            if (pixels := opened.width * opened.height) > MOST_PIXELS:  # nothing is decoded yet
                raise ValueError(f"{pixels} pixels (legal: at most {MOST_PIXELS}); send it smaller")
            return _to_rgb(ImageOps.exif_transpose(opened) if _is_rotated(opened) else opened)
    except Exception as error:  # decoders raise whatever they like for broken files
        raise MlflowException.invalid_parameter_value(
            f"row {row}: no readable picture ({_reason(error)}); give a file's bytes, in JSON as "
            "base64 without a data: before it"
        ) from error


def _reason(error: Exception) -> str:
    # Pillow's own text names an object in memory
    return "no kind that is known" if isinstance(error, UnidentifiedImageError) else str(error)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """The pixels as in training: transparent ones are blended with grey."""
    if picture.mode.startswith(("I", "F")):
        raise ValueError("it has more than 8 bits a channel; send RGB of 8")
    if picture.has_transparency_data:
        ground = Image.new("RGBA", picture.size, (GREY, GREY, GREY, 255))
        return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")
    if picture.mode == "CMYK" and (profile := picture.info.get("icc_profile")):
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            if rgb := ImageCms.profileToProfile(picture, embedded, srgb, outputMode="RGB"):
                return rgb
    return picture.convert("RGB")


def _is_rotated(picture: Image.Image) -> bool:
    try:
        return picture.getexif().get(ORIENTATION, 1) in range(2, 9)
    except Exception:  # broken EXIF raises whatever its parser does not expect
        return False


def _to_canvas(picture: Image.Image, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The picture at the top left of a grey square, and its scale for x, y, x, y.

    The canvas is (size, size, 3).
    """
    fit = min(size / picture.width, size / picture.height)
    width, height = (max(1, round(side * fit)) for side in picture.size)
    canvas = np.full((size, size, 3), GREY, dtype=np.uint8)
    scaled = picture.resize((width, height), Image.Resampling.BILINEAR)
    canvas[:height, :width] = np.asarray(scaled)
    scale = np.array([width / picture.width, height / picture.height])
    return canvas, np.tile(scale, 2)


set_model(DetectorModel())
