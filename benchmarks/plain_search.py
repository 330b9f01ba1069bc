"""The script that one would write instead of Unfreeze; `benchmarks/versus.py` runs both.

    python benchmarks/plain_search.py FOLDER [--backbone B] [--weights W] [--trials 12] ...

Ray Tune with OptunaSearch, ASHA and the MLflow callback around the usual torchvision loop: pictures
decoded each epoch by a DataLoader, fp32, pycocotools after every epoch, the head trained anew in
each trial. The detector is built by Unfreeze, so that both sides train the same one. The last line
is the figures as one JSON object.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
from plain import make_plain
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

from trainer.config import Model
from trainer.model.detectors import Detector, build

HEAD_EPOCHS, UNFREEZE_EPOCHS = 4, 12


def space(trial: optuna.Trial) -> None:
    """Suggest the values of a trial."""
    trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    trial.suggest_categorical("batch_size", [2, 4, 8])
    trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
    trial.suggest_int("depth", 0, 5)
    trial.suggest_categorical("schedule", ["gradual", "at_once"])


def pictures(folder: Path, split: str, size: int) -> Any:
    """The pictures of a split, decoded at each use; those of train are augmented."""
    steps: list[Any] = [v2.ToImage()]
    if split == "train":
        steps += [
            v2.ColorJitter(brightness=0.15, contrast=0.15),
            v2.RandomAffine(0, translate=(0.1, 0.1), scale=(0.8, 1.4)),
            v2.RandomHorizontalFlip(),
        ]
    steps.append(v2.Resize(size=None, max_size=size))
    if split == "train":
        steps.append(v2.SanitizeBoundingBoxes())
    dataset = CocoDetection(
        folder / "images", folder / f"{split}.json", transforms=v2.Compose(steps)
    )
    return wrap_dataset_for_transforms_v2(dataset, target_keys=("image_id", "boxes", "labels"))


def new_detector(options: argparse.Namespace, classes: int) -> Detector:
    """The detector that both sides train."""
    model = Model(backbone=options.backbone, weights=options.weights, image_size=options.size)
    return make_plain(build(model, classes))


def train_detector(config: dict[str, Any], options: argparse.Namespace) -> None:
    """Train one trial, and report each epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    folder, size = options.folder, options.size
    truth = COCO(folder / "val.json")
    ids = sorted(truth.cats)
    loader = DataLoader(
        pictures(folder, "train", size), config["batch_size"], shuffle=True, collate_fn=list
    )
    detector = new_detector(options, len(ids))
    new = [*detector.neck.parameters(), *detector.head.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": detector.backbone.parameters(), "scale": 0.3}, {"params": new, "scale": 1.0}],
        weight_decay=config["weight_decay"],
    )
    for epoch in range(HEAD_EPOCHS + UNFREEZE_EPOCHS):
        set_depth(detector, config, epoch)
        detector.train()
        detector.backbone.eval()  # BatchNorm keeps the pretrained statistics
        for step, batch in enumerate(loader):
            set_lr(optimizer, config, epoch, step / len(loader))
            canvases, targets = collate(batch, size, ids)
            loss = sum(detector(canvases, targets).values())
            if not torch.isfinite(loss):
                raise RuntimeError("the loss is not finite")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(detector.parameters(), 10)
            optimizer.step()
        figures = evaluate(detector, pictures(folder, "val", size), truth, ids, size)
        with tempfile.TemporaryDirectory() as place:
            torch.save(detector.state_dict(), Path(place) / "model.pt")
            tune.report(figures, checkpoint=tune.Checkpoint.from_directory(place))


def set_depth(detector: Detector, config: dict[str, Any], epoch: int) -> None:
    """Freeze and unfreeze the stages of the backbone for an epoch, from 0."""
    depth = 0 if epoch < HEAD_EPOCHS else config["depth"]
    if config["schedule"] == "gradual" and depth:
        depth = min(depth, math.ceil(depth * (epoch - HEAD_EPOCHS + 1) / 2))
    stages = len(detector.stages)
    for i, stage in enumerate(detector.stages):
        for name in stage.parameters:
            detector.backbone.get_parameter(name).requires_grad_(i >= stages - depth)


def set_lr(
    optimizer: torch.optim.Optimizer, config: dict[str, Any], epoch: int, done: float
) -> None:
    """Set learning rates: in each phase a warm-up of half an epoch, then a cosine.

    `done` is the fraction of the epoch that is over.
    """
    head = epoch < HEAD_EPOCHS
    first, epochs = (0, HEAD_EPOCHS) if head else (HEAD_EPOCHS, UNFREEZE_EPOCHS)
    progress = (epoch - first + done) / epochs
    warm_up = min(1.0, (progress * epochs + 1e-3) / 0.5)
    for group in optimizer.param_groups:
        peak = (2e-3 if head else config["lr"]) * group["scale"]
        group["lr"] = peak * warm_up * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def collate(batch: list[Any], size: int, ids: list[int]) -> tuple[torch.Tensor, list[Any]]:
    """Canvases, (n, 3, size, size) uint8, and the target of each picture."""
    canvases = torch.full((len(batch), 3, size, size), 114, dtype=torch.uint8)
    targets = []
    for canvas, (picture, target) in zip(canvases, batch, strict=True):
        canvas[:, : picture.shape[1], : picture.shape[2]] = picture
        boxes = target.get("boxes", torch.zeros(0, 4))
        labels = [ids.index(int(label)) + 1 for label in target.get("labels", [])]
        targets.append(
            {
                "boxes": torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "labels": torch.tensor(labels, dtype=torch.int64),
            }
        )
    return canvases, targets


@torch.no_grad()
def evaluate(
    detector: Detector, split: Any, truth: COCO, ids: list[int], size: int
) -> dict[str, float]:
    """AP of a detector on a split, by pycocotools."""
    detector.eval()
    results = []
    for picture, target in split:
        canvas = torch.full((1, 3, size, size), 114, dtype=torch.uint8)
        canvas[0, :, : picture.shape[1], : picture.shape[2]] = picture
        (detected,) = detector(canvas)
        image = truth.imgs[target["image_id"]]
        scale = max(image["width"], image["height"]) / size
        boxes = BoundingBoxes(detected["boxes"] * scale, format="XYXY", canvas_size=(size, size))
        boxes = v2.functional.convert_bounding_box_format(boxes, new_format="XYWH")
        for box, label, score in zip(boxes, detected["labels"], detected["scores"], strict=True):
            results.append(
                {
                    "image_id": target["image_id"],
                    "category_id": ids[int(label) - 1],
                    "bbox": box.tolist(),
                    "score": float(score),
                }
            )
    if not results:
        return {"map": 0.0, "map_50": 0.0}
    run = COCOeval(truth, truth.loadRes(results), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return {"map": float(run.stats[0]), "map_50": float(run.stats[1])}


def test_figures(checkpoint: tune.Checkpoint, options: argparse.Namespace) -> dict[str, float]:
    """AP of a checkpoint on test."""
    truth = COCO(options.folder / "test.json")
    ids = sorted(truth.cats)
    detector = new_detector(options, len(ids))
    with checkpoint.as_directory() as place:
        detector.load_state_dict(torch.load(Path(place) / "model.pt"))
    split = pictures(options.folder, "test", options.size)
    return evaluate(detector, split, truth, ids, options.size)


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(train_detector, options=options), {"cpu": 1}),
            tune_config=tune.TuneConfig(
                metric="map",
                mode="max",
                num_samples=options.trials,
                search_alg=OptunaSearch(space=space, metric="map", mode="max", seed=options.seed),
                scheduler=ASHAScheduler(
                    max_t=HEAD_EPOCHS + UNFREEZE_EPOCHS,
                    grace_period=HEAD_EPOCHS + 2,
                    reduction_factor=3,
                ),
            ),
            run_config=tune.RunConfig(
                storage_path=place,
                callbacks=[
                    MLflowLoggerCallback(f"sqlite:///{place}/mlflow.db", experiment_name="plain")
                ],
            ),
        )
        results = tuner.fit()
        best = results.get_best_result(scope="all")
        frames = [results[i].metrics_dataframe for i in range(len(results)) if results[i].metrics]
        epochs = sum(len(frame) for frame in frames if frame is not None)
        frame, checkpoint = best.metrics_dataframe, best.get_best_checkpoint("map", "max")
        assert frame is not None and checkpoint is not None
        top = frame.loc[frame["map"].idxmax()]
        test = test_figures(checkpoint, options)
    ray.shutdown()  # else it may print a worker's last lines after the figures
    figures = {f"val_{name}": float(top[name]) for name in test}
    figures |= {f"test_{name}": value for name, value in test.items()}
    print(json.dumps(figures | {"epochs": epochs}))


if __name__ == "__main__":
    main()
