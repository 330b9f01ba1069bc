"""What a training step costs a picture: plain, as in trials, and with cached frozen features.

    python benchmarks/step.py [--backbones resnet50 ...] [--runs 3] [--batch 2] [--size 320]

Plain is fp32 in PyTorch's default memory format, with norms after convolutions. Trials run
channels_last in the precision of the hardware, with norms fused. Weights are random, which costs
the same. The three take turns; the median of the runs and their range are printed, and what
`train.ema` adds to a step of ours. The last line is the figures as one JSON object.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from plain import make_plain

from trainer.config import Model, Train, TrainConfig
from trainer.data.batches import batches
from trainer.data.dataset import Category, Picture, Split
from trainer.data.shared_arrays import Bytes
from trainer.model.detectors import Detector, build
from trainer.model.freezing import set_depth
from trainer.precision import default_device, resolve_precision
from trainer.training import optim
from trainer.training.engine import train_one_epoch
from trainer.training.frozen_features import CachedFeatures, cache_frozen_features

UPDATES = 20
"""Updates of the average of the weights that are timed together: one takes a millisecond."""
BACKBONES = ("tf_efficientnet_lite0", "resnet50", "vgg16")


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    split, canvases = pictures(options.batch, options.size)
    milliseconds: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name in options.backbones:
        model = Model(backbone=name, weights="none", image_size=options.size)
        plain = Side(TrainConfig(model=model, train=Train(precision="fp32")), split, canvases)
        make_plain(plain.detector)
        ours = Side(
            TrainConfig(
                model=model, train=Train.model_validate({"precision": resolve_precision("auto")})
            ),
            split,
            canvases,
        )
        milliseconds[name] = {}
        for depth in range(len(ours.detector.stages) + 1):
            with tempfile.TemporaryDirectory() as folder:
                figures = compare(plain, ours, depth, Path(folder), options.runs)
            milliseconds[name][str(depth)] = figures
            print(f"{name}, depth {depth}: {shown(figures)}", flush=True)
    print(
        json.dumps(
            {"threads": options.threads, "precision": resolve_precision("auto"), "ms": milliseconds}
        )
    )


def pictures(count: int, size: int) -> tuple[Split, Bytes]:
    """Pictures of noise with three boxes each, and their canvases."""
    draw = np.random.default_rng(0)
    made = []
    for i in range(count):
        corners = draw.uniform(0, size / 2, (3, 2))
        sides = draw.uniform(size / 10, size / 2, (3, 2))
        made.append(
            Picture(
                id=i,
                file=Path(f"{i}.png"),
                width=size,
                height=size,
                sha256=str(i),
                boxes=np.concatenate([corners, sides], axis=1),
                areas=sides.prod(axis=1),
                labels=np.array([1, 2, 3]),
                crowd=np.zeros(3, dtype=bool),
            )
        )
    categories = tuple(Category(i, str(i)) for i in (1, 2, 3))
    return Split("train", tuple(made), categories), draw.integers(
        0, 256, (count, size, size, 3), dtype=np.uint8
    )


class Side:
    """A detector with its optimizer and data."""

    def __init__(self, config: TrainConfig, split: Split, canvases: Bytes) -> None:
        self.config, self.split, self.canvases = config, split, canvases
        torch.manual_seed(0)
        self.detector: Detector = build(config.model, len(split.categories)).to(default_device())
        self.optimizer = optim.build(self.detector, config.train)

    def step(self, depth: int, features: CachedFeatures | None = None) -> float:
        """Milliseconds a picture of one step, with the making of its batch."""
        count = len(self.split.pictures)
        set_depth(self.detector, self.detector.stages, depth)
        started = now()
        train_one_epoch(
            self.detector,
            self.optimizer,
            torch.amp.GradScaler(
                default_device().type, enabled=self.config.train.precision == "fp16"
            ),
            batches(
                self.split,
                self.canvases,
                batch_size=count,
                augment="flip",
                seed=0,
                epoch=0,
                features=features,
            ),
            set_step=lambda step: None,  # at a learning rate of 0: all runs do the same
            precision=self.config.train.precision,
            clip_norm=self.config.train.clip_norm,
            seed=0,
            epoch=0,
        )
        return 1000 * (now() - started) / count

    def averaging(self, depth: int) -> float:
        """Milliseconds a picture of averaging the weights after a step."""
        set_depth(self.detector, self.detector.stages, depth)
        average = optim.WeightAverage(self.detector)
        average.include_trainable()
        average.update(0.99)  # warms up
        started = now()
        for _ in range(UPDATES):
            average.update(0.99)
        return 1000 * (now() - started) / UPDATES / len(self.split.pictures)


def now() -> float:
    """Seconds, when a GPU has finished its work; on a CPU the processor time a thread.

    Processor time differs little between an idle machine and a busy one.
    """
    if not torch.cuda.is_available():
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize()
    return time.perf_counter()


def compare(plain: Side, ours: Side, depth: int, folder: Path, runs: int) -> dict[str, list[float]]:
    """Milliseconds a picture of each run, by side; with everything unfrozen nothing is cached.

    `average` is what averaging the weights adds.
    """
    features = cache_frozen_features(
        ours.detector, depth, ours.config, [(ours.split, ours.canvases)], folder
    ).get("train")
    sides: dict[str, Callable[[], float]] = {
        "plain": lambda: plain.step(depth),
        "ours": lambda: ours.step(depth),
    }
    if features:
        sides["kept"] = lambda: ours.step(depth, features)
    sides["average"] = lambda: ours.averaging(depth)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(runs + 1):
        for name, step in sides.items():
            took = step()
            if run:  # the first one warms up
                times[name].append(round(took, 3))
    return times


def shown(figures: dict[str, list[float]]) -> str:
    """`plain 147 (140-150), ours 64 (62-70) ms a picture: 2.3 times as fast; EMA adds 0.8 %`."""
    middle = {name: median(runs) for name, runs in figures.items()}
    added = middle.pop("average") / middle["ours"]
    parts = [
        f"{name} {middle[name]:.0f} ({min(figures[name]):.0f}-{max(figures[name]):.0f})"
        for name in middle
    ]
    gains = [f"{middle['plain'] / middle[name]:.1f}" for name in middle if name != "plain"]
    return (
        f"{', '.join(parts)} ms a picture: {' and '.join(gains)} times as fast; "
        f"EMA adds {added:.1%} to ours"
    )


if __name__ == "__main__":
    main()
