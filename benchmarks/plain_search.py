"""The script that one would write instead of Unfreeze; `benchmarks/versus.py` runs it beside.

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
    trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    trial.suggest_categorical("batch_size", [2, 4, 8])
    trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
    trial.suggest_int("depth", 0, 5)
    trial.suggest_categorical("schedule", ["gradual", "at_once"])


def pictures(folder: Path, split: str, size: int) -> Any:
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
    found = CocoDetection(folder / "images", folder / f"{split}.json", transforms=v2.Compose(steps))
    return wrap_dataset_for_transforms_v2(found, target_keys=("image_id", "boxes", "labels"))


def new_detector(options: argparse.Namespace, classes: int) -> Detector:
    model = Model(backbone=options.backbone, weights=options.weights, image_size=options.size)
    return make_plain(build(model, classes))


def train_detector(config: dict[str, Any], options: argparse.Namespace) -> None:
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
    stages = len(detector.stages)
    for epoch in range(HEAD_EPOCHS + UNFREEZE_EPOCHS):
        head = epoch < HEAD_EPOCHS
        depth = 0 if head else config["depth"]
        if config["schedule"] == "gradual" and not head:
            depth = min(depth, math.ceil(depth * (epoch - HEAD_EPOCHS + 1) / 2))
        for i, stage in enumerate(detector.stages):
            for name in stage.parameters:
                detector.backbone.get_parameter(name).requires_grad_(i >= stages - depth)
        detector.train()
        detector.backbone.eval()  # BatchNorm keeps the pretrained statistics
        first, epochs = (0, HEAD_EPOCHS) if head else (HEAD_EPOCHS, UNFREEZE_EPOCHS)
        for step, batch in enumerate(loader):
            done = (epoch - first + step / len(loader)) / epochs
            warm = min(1.0, (done * epochs + 1e-3) / 0.5)
            for group in optimizer.param_groups:
                peak = (2e-3 if head else config["lr"]) * group["scale"]
                group["lr"] = peak * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
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


def collate(batch: list[Any], size: int, ids: list[int]) -> tuple[torch.Tensor, list[Any]]:
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
    detector.eval()
    results = []
    for picture, target in split:
        canvas = torch.full((1, 3, size, size), 114, dtype=torch.uint8)
        canvas[0, :, : picture.shape[1], : picture.shape[2]] = picture
        (found,) = detector(canvas)
        image = truth.imgs[target["image_id"]]
        scale = max(image["width"], image["height"]) / size
        boxes = BoundingBoxes(found["boxes"] * scale, format="XYXY", canvas_size=(size, size))
        boxes = v2.functional.convert_bounding_box_format(boxes, new_format="XYWH")
        for box, label, score in zip(boxes, found["labels"], found["scores"], strict=True):
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
    truth = COCO(options.folder / "test.json")
    ids = sorted(truth.cats)
    detector = new_detector(options, len(ids))
    with checkpoint.as_directory() as place:
        detector.load_state_dict(torch.load(Path(place) / "model.pt"))
    split = pictures(options.folder, "test", options.size)
    return evaluate(detector, split, truth, ids, options.size)


def main() -> None:
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
        found = tuner.fit()
        best = found.get_best_result(scope="all")
        frame = best.metrics_dataframe
        epochs = sum(len(result.metrics_dataframe) for result in found if result.metrics)
        top = frame.loc[frame["map"].idxmax()]
        test = test_figures(best.get_best_checkpoint("map", "max"), options)
    ray.shutdown()  # else it may print what a worker said as it ended, after the figures
    figures = {f"val_{name}": float(top[name]) for name in test}
    figures |= {f"test_{name}": value for name, value in test.items()}
    print(json.dumps(figures | {"epochs": epochs}))


if __name__ == "__main__":
    main()
