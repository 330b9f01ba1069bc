"""Training on a GPU: pictures a second beside a plain loop with AMP, and trials an hour.

    python benchmarks/gpu.py FOLDER [--backbone resnet50] [--size 640] [--batch 8] [--runs 3]

FOLDER holds train.json, val.json and images/ (COCO). Both sides train the same detector with the
same losses, head alone and everything unfrozen, and take turns; ours also without CUDA graphs.
Plain is torchvision's reference loop: a DataLoader with a process a core, AMP, and each step's loss
read. Without a GPU it runs on the CPU; then the GPU's busy fraction and trials an hour are not
measured. The last line is the figures as one JSON object.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import whole_search
from plain import make_plain
from plain_search import collate, pictures
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from trainer.config import Data, Model, Train, TrainConfig
from trainer.data.batches import batches, num_workers_for
from trainer.data.canvas_store import open_canvases
from trainer.data.dataset import Splits
from trainer.data.loading import load
from trainer.model.detectors import build
from trainer.model.freezing import set_depth
from trainer.precision import DTYPES, default_device, resolve_precision
from trainer.training import optim
from trainer.training.engine import train_one_epoch
from trainer.training.frozen_features import cache_frozen_features
from trainer.training.probe import choose_cache_depth

EPOCHS_OF_A_TRIAL = (2, 4)
TRIALS = 8


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--shares", type=int, nargs="*", default=(1, 2, 4), metavar="TRIALS")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    on_gpu = default_device().type == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else "no GPU"
    print(f"{name}, {cores} cores, {resolve_precision('auto')}", flush=True)
    figures: dict[str, Any] = {"device": name, "cores": cores}
    with tempfile.TemporaryDirectory(prefix="unfreeze-benchmark-") as place:
        os.environ["XDG_CACHE_HOME"] = place
        files = {split: options.folder / f"{split}.json" for split in ("train", "val")}
        data = load(Data(**files, images=options.folder / "images"), Path(place))
        for phase, depth in (("head", 0), ("everything", None)):
            figures[phase] = compare(options, data, depth, cores, Path(place))
            print(f"{phase}: {shown(figures[phase])}", flush=True)
    figures["trials_an_hour"] = None
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()  # the searches, separate processes, need it
        figures["trials_an_hour"] = {}
        for at_once in options.shares:
            figures["trials_an_hour"][at_once] = trials_an_hour(options, at_once, cores)
            print(f"{at_once} share the GPU: {figures['trials_an_hour'][at_once]} trials an hour")
    print(json.dumps(figures))


# -- a step ---------------------------------------------------------------------------------------


def compare(
    options: argparse.Namespace, data: Splits, depth: int | None, cores: int, place: Path
) -> dict[str, Any]:
    """Pictures a second of each side's epochs, in turns, and the fraction of time the GPU is busy.

    The fraction is None without a GPU. Depth None is everything.
    """
    sides = {
        "ours": ours(options, data, depth, cores, place),
        "without graphs": ours(options, data, depth, cores, place, graphs=False),
        "plain": plain(options, data, depth, cores),
    }
    count = len(data.train.pictures)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(options.runs + 1):
        for name, epoch in sides.items():
            took = seconds(epoch, run)
            if run:  # the first one warms up
                rates[name].append(round(count / took, 1))
    return {
        "pictures_a_second": rates,
        "ratio": round(median(rates["ours"]) / median(rates["plain"]), 2),
        "busy": {name: busy(epoch) for name, epoch in sides.items()},
    }


def ours(
    options: argparse.Namespace,
    data: Splits,
    depth: int | None,
    cores: int,
    place: Path,
    graphs: bool = True,
) -> Callable[[int], None]:
    """An epoch as a trial trains it, with frozen features cached where a search caches them."""
    train = Train.model_validate({"augment": "flip", "precision": resolve_precision("auto")})
    model = Model(backbone=options.backbone, weights="none", image_size=options.size)
    config = TrainConfig(model=model, train=train)
    torch.manual_seed(0)
    detector = build(model, len(data.categories)).to(default_device())
    detector.cuda_graphs.off = not graphs
    optimizer = optim.build(detector, train)
    scaler = torch.amp.GradScaler(default_device().type, enabled=train.precision == "fp16")
    canvases = open_canvases(data.train, options.size, place)
    deep = len(detector.stages) if depth is None else depth
    features = {}
    if (limit := choose_cache_depth(config, data, cores).setting) != "off" and deep <= limit:
        features = cache_frozen_features(detector, deep, config, [(data.train, canvases)], place)

    def epoch(number: int) -> None:
        set_depth(detector, detector.stages, deep)
        with num_workers_for(default_device()) as num_workers:
            train_one_epoch(
                detector,
                optimizer,
                scaler,
                batches(
                    data.train,
                    canvases,
                    batch_size=options.batch,
                    augment=train.augment,
                    seed=0,
                    epoch=number,
                    features=features.get("train"),
                    num_workers=num_workers,
                ),
                set_step=lambda step: None,  # at a learning rate of 0
                precision=train.precision,
                clip_norm=train.clip_norm,
                seed=0,
                epoch=number,
            )

    return epoch


def plain(
    options: argparse.Namespace, data: Splits, depth: int | None, cores: int
) -> Callable[[int], None]:
    """An epoch of torchvision's reference loop: decoding, AMP, PyTorch's default memory format."""
    place, dtype = default_device(), DTYPES[resolve_precision("auto")]
    torch.manual_seed(0)
    model = Model(backbone=options.backbone, weights="none", image_size=options.size)
    detector = make_plain(build(model, len(data.categories))).to(place)
    set_depth(detector, detector.stages, len(detector.stages) if depth is None else depth)
    trained = [p for p in detector.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0)
    scaler = torch.amp.GradScaler(place.type, enabled=dtype is torch.float16)
    ids = sorted(category.id for category in data.categories)
    loader = DataLoader(
        pictures(options.folder, "train", options.size),
        options.batch,
        shuffle=True,
        num_workers=max(1, cores - 1),
        collate_fn=partial(collate, size=options.size, ids=ids),
        pin_memory=place.type == "cuda",
        persistent_workers=True,
    )

    def epoch(number: int) -> None:
        for canvases, targets in loader:
            targets = [{k: v.to(place) for k, v in target.items()} for target in targets]
            with torch.autocast(place.type, dtype=dtype, enabled=dtype is not torch.float32):
                losses = detector(canvases.to(place), targets)
            total = sum(losses.values())
            if not torch.isfinite(total):
                raise RuntimeError("the loss is not finite")
            optimizer.zero_grad()
            scaler.scale(total).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(trained, 10)
            scaler.step(optimizer)
            scaler.update()

    return epoch


def seconds(epoch: Callable[[int], None], number: int) -> float:
    """Seconds of an epoch, until the GPU has finished."""
    started = time.perf_counter()
    epoch(number)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def busy(epoch: Callable[[int], None]) -> float | None:
    """Fraction of an epoch in which the GPU runs kernels, as its profiler sees them."""
    if not torch.cuda.is_available():
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        took = seconds(epoch, 0)
    kernels: list[float] = [
        event.self_device_time_total
        for event in seen.key_averages()
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]
    return round(sum(kernels) / 1e6 / took, 2)


def shown(figures: dict[str, Any]) -> str:
    """`ours 310 (300-320), plain 100 (95-102) pictures a second: 3.10 times; busy 0.9, 0.4`."""
    parts = [
        f"{name} {median(runs):.0f} ({min(runs):.0f}-{max(runs):.0f})"
        for name, runs in figures["pictures_a_second"].items()
    ]
    work = [
        f"{share}" if share is not None else "not measured" for share in figures["busy"].values()
    ]
    return f"{', '.join(parts)} pictures a second: {figures['ratio']} times; busy {', '.join(work)}"


# -- trials ---------------------------------------------------------------------------------------


def trials_an_hour(options: argparse.Namespace, at_once: int, cores: int) -> float:
    """Trials an hour of a search, from its command to its winner, with so many on the GPU."""
    head, unfreeze = EPOCHS_OF_A_TRIAL
    settings = {
        "model.backbone": options.backbone,
        "model.weights": "none",
        "model.image_size": options.size,
        "model.detector": "retinanet",
        "train.head.epochs": head,
        "train.unfreeze.epochs": unfreeze,
        "search.asha": "off",
        "search.confirm": "off",
        "resources.gpus_per_trial": round(1 / at_once, 4),
        "resources.cpus_per_trial": max(1, cores // at_once),
    }
    with tempfile.TemporaryDirectory(prefix="unfreeze-benchmark-") as place:
        sets = [f"{name}={value}" for name, value in settings.items()]
        figures: dict[str, Any] = whole_search.run(options.folder, TRIALS, sets, Path(place))
    return round(60 * TRIALS / float(figures["minutes"]), 1)


if __name__ == "__main__":
    main()
