"""Pictures a second of `unfreeze predict`: from safetensors, eager in fp32, and from ONNX.

    python benchmarks/predict.py MODEL DATA [--rounds 3]

MODEL is an exported folder, or a search's name. Its ONNX file is made and compared first. Each
round takes every val picture from its file to its boxes in both ways, on two threads. The last line
is the figures as one JSON object.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from search.exports.export_model import export_portable
from search.exports.model_data import load_data
from search.exports.model_location import find_model
from trainer.data.canvas import open_picture
from trainer.data.dataset import Picture
from trainer.evaluation.predict import predict
from trainer.export.bundle import Spec, open_export


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--storage", type=Path, default=Path("searches"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(2)
    eager = find_model(options.model, options.storage)
    pictures = load_data(options.data).val.pictures
    best = {"eager": 0.0, "onnx": 0.0}
    with tempfile.TemporaryDirectory() as place:
        export_portable(eager, "onnx", Path(place), pictures)
        forms = {"eager": open_export(eager), "onnx": open_export(Path(place))}
        for form in forms.values():
            pictures_a_second(form, pictures[:4])  # warms up
        for _ in range(options.rounds):
            for name, form in forms.items():
                best[name] = max(best[name], pictures_a_second(form, pictures))
    figures = {name: round(value, 1) for name, value in best.items()}
    ratio = best["onnx"] / best["eager"]
    print(f"eager {figures['eager']}, ONNX {figures['onnx']} pictures a second: {ratio:.2f} times")
    print(json.dumps({**figures, "ratio": round(ratio, 2), "pictures": len(pictures)}))


def pictures_a_second(form: tuple[Any, Spec], pictures: tuple[Picture, ...]) -> float:
    """Speed of one form of the model: its function and its spec."""
    detect, spec = form
    start = time.perf_counter()
    for picture in pictures:
        opened = open_picture(picture.file)
        predict(detect, spec.categories, opened, spec.config.model.image_size, spec.thresholds)
    return len(pictures) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
