"""One file that runs without this project: ONNX for onnxruntime, pt2 for torch alone.

Both hold the whole way from canvases to boxes, see `graph.py`. A file is kept only when it finds
what the original finds.
"""

import contextlib
import io
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..config import BadInput
from ..data.canvas import letterbox
from ..data.dataset import Picture
from ..machine_errors import is_out_of_memory
from ..model.detectors import Detector
from ..model.heads import DETECTIONS, SCORE_THRESHOLD, Detect, Detections
from .traceable import Graph, as_graph

FILES = {"onnx": "model.onnx", "pt2": "model.pt2"}
IR_VERSION, LEAST_ONNXRUNTIME = 9, "1.17"
"""Of an ONNX file: torch writes 10, of which nothing is used. With opset 20, which it takes, 9 is
known to onnxruntime from that version on."""
COMPARED = 32
"""Pictures of val on which a file is compared with its original."""
LEAST_IOU, MOST_APART = 0.99, 1e-3
"""How far boxes and scores of a file may be from the original's."""


def write_portable(
    detector: Detector, size: int, format: str, folder: Path, pictures: tuple[Picture, ...]
) -> None:
    """Write `model.onnx` or `model.pt2` into a folder, if it agrees with the detector on pictures.

    Raises BadInput with the reason when it cannot be exported or does not agree.
    """
    file = folder / FILES[format]
    try:
        with _quiet(), torch.no_grad():
            graph = as_graph(detector, size).requires_grad_(False)  # a pt2 file would keep it
            WRITERS[format](graph, size, file)
        differences = compare(detector, OPENERS[format](file), size, pictures, graph.most)
    except BadInput:
        raise
    except Exception as error:  # exporters have an own type for each of their many limits
        file.unlink(missing_ok=True)
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise BadInput([f"--format {format}: {type(error).__name__}: {reason}"]) from error
    if differences:
        file.unlink()
        raise BadInput(
            [f"--format {format}: not written, since it differs from the original", *differences]
        )


def open_portable(place: Path) -> Detect | None:
    """The detector in a file of ours, or in a folder's ONNX file; None where there is none.

    A pt2 can run code as it is opened, so it is by its own path alone. Raises BadInput when the
    file cannot be read.
    """
    file = place / FILES["onnx"] if place.is_dir() else place
    if not file.is_file():
        return None
    try:
        return OPENERS[file.suffix[1:]](file)
    except Exception as error:  # onnxruntime and torch have many types for damage
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise BadInput([f"{file} cannot be read: {reason}"]) from error


# -- writing and opening --------------------------------------------------------------------------


def _write_onnx(graph: Graph, size: int, file: Path) -> None:
    program = torch.onnx.export(
        graph,
        (_example(size),),
        dynamo=True,
        input_names=["pictures"],
        output_names=["boxes", "labels", "scores"],
        dynamic_shapes={"pictures": {0: "batch"}},
        verbose=False,
    )
    assert program is not None
    program.model.ir_version = IR_VERSION
    written = program.model.graph
    values = [*written.inputs, *written.initializers.values()]
    for node in written.all_nodes():
        values += node.outputs
        node.metadata_props.clear()  # in whose folders the code lay; IR 9 has no place for it
    for value in values:
        value.metadata_props.clear()
    written.metadata_props.clear()
    program.save(file, external_data=False)  # one file; it may have 2 GB


def _write_pt2(graph: Graph, size: int, file: Path) -> None:
    shapes = {"pictures": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(graph, (_example(size),), dynamic_shapes=shapes), file)


def _example(size: int) -> Tensor:
    """Two pictures: the tracer would take one for a constant."""
    return torch.zeros(2, size, size, 3, dtype=torch.uint8)


def _open_onnx(file: Path) -> Detect:
    import onnxruntime  # a third of a second that only this needs

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def detect(pictures: Tensor) -> Detections:
        canvases = np.ascontiguousarray(pictures.permute(0, 2, 3, 1).numpy())
        return _unpadded(*map(torch.from_numpy, session.run(None, {"pictures": canvases})))

    return detect


def _open_pt2(file: Path) -> Detect:
    if not zipfile.is_zipfile(file):  # torch would log a traceback first
        raise ValueError("it is no zip file")
    with _quiet():
        program: Any = torch.export.load(file).module()

    @torch.no_grad()
    def detect(pictures: Tensor) -> Detections:
        return _unpadded(*program(pictures.permute(0, 2, 3, 1).contiguous()))

    return detect


WRITERS: dict[str, Callable[[Graph, int, Path], None]] = {"onnx": _write_onnx, "pt2": _write_pt2}
OPENERS: dict[str, Callable[[Path], Detect]] = {"onnx": _open_onnx, "pt2": _open_pt2}


def _unpadded(boxes: Tensor, labels: Tensor, scores: Tensor) -> Detections:
    there = scores > 0
    return [
        {"boxes": boxes[i][mask], "labels": labels[i][mask], "scores": scores[i][mask]}
        for i, mask in enumerate(there)
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters tell much of themselves, in three ways."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# -- comparing ------------------------------------------------------------------------------------


@torch.no_grad()
def compare(
    detector: Detect,
    other: Detect,
    size: int,
    pictures: tuple[Picture, ...],
    detections: int = DETECTIONS,
) -> list[str]:
    """What another form of a detector, which finds so many boxes of a picture at most, finds
    differently, a line a picture, in fp32."""
    differences = []
    every = max(1, len(pictures) // COMPARED)
    for picture in pictures[::every][:COMPARED]:
        canvas = torch.from_numpy(letterbox(picture, size))[None].permute(0, 3, 1, 2)
        (ours,), (theirs,) = detector(canvas), other(canvas)
        for found, against, of in ((ours, theirs, "the original"), (theirs, ours, "the file")):
            missed = unmatched(found, against, detections)
            if len(missed):
                score = found["scores"][missed[0]].item()
                differences.append(
                    f"{picture.file.name}: {len(missed)} of {len(found['scores'])} boxes of {of} "
                    f"have no equal in the other, first with score {score:.4f}"
                )
    return differences


def unmatched(
    found: dict[str, Tensor], against: dict[str, Tensor], detections: int = DETECTIONS
) -> Tensor:
    """Which boxes have none of their class in the other list at the same place, equally certain.

    A box at the edge of what is kept may be lost by rounding alone, so it is not missed.
    """
    if len(found["scores"]) == 0:
        return torch.zeros(0, dtype=torch.int64)
    full = len(against["scores"]) == detections
    edge = against["scores"].min().item() if full else SCORE_THRESHOLD
    apart = (found["boxes"][:, None] - against["boxes"]).abs().amax(dim=-1)
    equal = (
        # a box that was clipped to a line has no IoU
        ((box_iou(found["boxes"], against["boxes"]) > LEAST_IOU) | (apart < 0.01))
        & (found["labels"][:, None] == against["labels"])
        & ((found["scores"][:, None] - against["scores"]).abs() <= MOST_APART)
    )
    certain = found["scores"] > edge + MOST_APART
    missed: Tensor = (certain & ~equal.any(dim=1)).nonzero()[:, 0]
    return missed
