"""One file that runs without this project: ONNX for onnxruntime, pt2 for torch alone.

Both take canvases and return boxes, see `traceable.py`. A file is kept only when its detections are
those of the original detector.
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

from ..config import InputError
from ..data.canvas import letterbox
from ..data.dataset import Picture
from ..machine_errors import is_out_of_memory
from ..model.detectors import Detector
from ..model.heads import DEFAULT_DETECTIONS, SCORE_THRESHOLD, Detect, Detections
from .traceable import Graph, as_graph

PORTABLE_FILES = {"onnx": "model.onnx", "pt2": "model.pt2"}
IR_VERSION, LEAST_ONNXRUNTIME = 9, "1.17"
"""IR version of an ONNX file, and the first onnxruntime that reads it with torch's opset 20. torch
writes IR 10, but uses nothing that is new in it."""
COMPARED_PICTURES = 32
"""Pictures of val on which a file is compared with its original."""
LEAST_IOU, LARGEST_SHIFT, LARGEST_SCORE_GAP = 0.99, 0.01, 1e-3
"""How far a file's boxes may be from the original's, by IoU or in pixels, and its scores."""


def write_portable(
    detector: Detector, size: int, format: str, folder: Path, pictures: tuple[Picture, ...]
) -> None:
    """Write `model.onnx` or `model.pt2` into a folder, if it agrees with the detector on pictures.

    Args:
        detector: A detector in eval mode on the CPU.
        size: Its canvas in pixels.
        format: `onnx` or `pt2`.
        folder: Where the file goes.
        pictures: Pictures to compare file and detector on.

    Raises:
        InputError: The detector cannot be exported in this format, or the file does not agree.
    """
    file = folder / PORTABLE_FILES[format]
    try:
        with _quiet(), torch.no_grad():
            # a pt2 file would keep requires_grad
            graph = as_graph(detector, size).requires_grad_(False)
            WRITERS[format](graph, size, file)
        differences = compare(detector, OPENERS[format](file), size, pictures, graph.most)
    except InputError:
        raise
    except Exception as error:  # exporters raise many types for what they cannot do
        file.unlink(missing_ok=True)
        if is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise InputError([f"--format {format}: {reason}"]) from error
    if differences:
        file.unlink()
        raise InputError(
            [f"--format {format}: not written, since it differs from the original", *differences]
        )


def open_portable(path: Path) -> Detect | None:
    """Open an ONNX or pt2 file to detect with it; None where there is none.

    Args:
        path: The file, or a folder, whose ONNX file is taken. A pt2 file is opened
            only by its path, since opening it may run code.

    Raises:
        InputError: The file cannot be read.
    """
    file = path / PORTABLE_FILES["onnx"] if path.is_dir() else path
    if not file.is_file():
        return None
    try:
        return OPENERS[file.suffix[1:]](file)
    except Exception as error:  # damage raises many types of errors
        if is_out_of_memory(error):
            raise
        raise InputError([f"{file} cannot be read: {_first_line(error)}"]) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


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
    # metadata names paths of the code on this machine, and IR 9 has no field for it
    onnx_graph = program.model.graph
    values = [*onnx_graph.inputs, *onnx_graph.initializers.values()]
    for node in onnx_graph.all_nodes():
        values += node.outputs
        node.metadata_props.clear()
    for value in values:
        value.metadata_props.clear()
    onnx_graph.metadata_props.clear()
    program.save(file, external_data=False)  # one file, of 2 GB at most


def _write_pt2(graph: Graph, size: int, file: Path) -> None:
    shapes = {"pictures": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(graph, (_example(size),), dynamic_shapes=shapes), file)


def _example(size: int) -> Tensor:
    """Two canvases: the tracer would take a batch size of 1 for a constant."""
    return torch.zeros(2, size, size, 3, dtype=torch.uint8)


def _open_onnx(file: Path) -> Detect:
    import onnxruntime  # here, since the import takes a third of a second

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def detect(pictures: Tensor) -> Detections:
        canvases = np.ascontiguousarray(pictures.permute(0, 2, 3, 1).numpy())
        return _unpadded(*map(torch.from_numpy, session.run(None, {"pictures": canvases})))

    return detect


def _open_pt2(file: Path) -> Detect:
    if not zipfile.is_zipfile(file):  # torch would log a traceback
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
    """Each picture's detections, without the padding that a graph adds."""
    return [
        {"boxes": boxes[i][mask], "labels": labels[i][mask], "scores": scores[i][mask]}
        for i, mask in enumerate(scores > 0)
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters, which log, warn and print."""
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
    detections: int = DEFAULT_DETECTIONS,
) -> list[str]:
    """How the detections of another form of a detector differ from the detector's, in fp32.

    Args:
        detector: The original.
        other: The other form.
        size: The canvas in pixels.
        pictures: Up to COMPARED_PICTURES of them are compared.
        detections: Most detections of a picture that both return.

    Returns:
        A line for each picture and side with boxes that the other side lacks.
    """
    differences = []
    every = max(1, len(pictures) // COMPARED_PICTURES)
    for picture in pictures[::every][:COMPARED_PICTURES]:
        canvas = torch.from_numpy(letterbox(picture, size))[None].permute(0, 3, 1, 2)
        (ours,), (theirs,) = detector(canvas), other(canvas)
        for boxes, others, side in ((ours, theirs, "the original"), (theirs, ours, "the file")):
            missing = unmatched(boxes, others, detections)
            if len(missing):
                score = boxes["scores"][missing[0]].item()
                differences.append(
                    f"{picture.file.name}: {len(missing)} of {len(boxes['scores'])} boxes of "
                    f"{side} have no equal in the other, first with score {score:.4f}"
                )
    return differences


def unmatched(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], detections: int = DEFAULT_DETECTIONS
) -> Tensor:
    """Positions (m,) of the boxes that have no equal in another list of detections.

    Boxes are equal when their places, classes and scores are. A box whose score is hardly above the
    least one kept is left out, since rounding alone can drop it.

    Args:
        ours: `boxes` (n, 4), `labels` (n,) and `scores` (n,) of a picture.
        theirs: The other list.
        detections: Most detections of a picture: a list of that length may have dropped some.
    """
    if len(ours["scores"]) == 0:
        return torch.zeros(0, dtype=torch.int64)
    is_full = len(theirs["scores"]) == detections
    least_kept = theirs["scores"].min().item() if is_full else SCORE_THRESHOLD
    shift = (ours["boxes"][:, None] - theirs["boxes"]).abs().amax(dim=-1)  # (n, m)
    is_equal = (
        # by shift too, since a box that was clipped to a line has no IoU
        ((box_iou(ours["boxes"], theirs["boxes"]) > LEAST_IOU) | (shift < LARGEST_SHIFT))
        & (ours["labels"][:, None] == theirs["labels"])
        & ((ours["scores"][:, None] - theirs["scores"]).abs() <= LARGEST_SCORE_GAP)
    )
    must_match = ours["scores"] > least_kept + LARGEST_SCORE_GAP
    unequal: Tensor = (must_match & ~is_equal.any(dim=1)).nonzero()[:, 0]
    return unequal
