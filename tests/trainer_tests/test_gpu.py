"""Code that runs only on a GPU, in all rooms of the trainer: `make gpu-tests`."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from trainer.config import NewDetector, TrainConfig
from trainer.data.batches import Batch, batches, num_workers_for
from trainer.data.canvas import letterbox
from trainer.data.dataset import Splits
from trainer.epoch_report import EpochReport
from trainer.evaluation.detections import detect
from trainer.export.bundle import export, load_export
from trainer.machine_errors import OutOfMemoryError
from trainer.model.checkpoint import BEST
from trainer.model.detectors import Detector, build
from trainer.model.freezing import set_depth
from trainer.model.heads import HeadOutputs
from trainer.precision import autocast, resolve_precision
from trainer.training import optim
from trainer.training.engine import DivergedError, train_one_epoch
from trainer.training.fit import Result, fit
from trainer.training.frozen_features import cache_frozen_features
from trainer.training.probe import gpu_memory_fraction, time_epochs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
GPU = torch.device("cuda")
Make = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Several threads, as a trial with a GPU has."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def trained(
    config: TrainConfig, data: Splits, folder: Path, until: int = 5
) -> tuple[Result, list[EpochReport]]:
    reports: list[EpochReport] = []

    def report(epoch: EpochReport) -> bool:
        reports.append(epoch)
        return epoch.epoch < until

    return fit(config, data, folder, report), reports


def few_batches(data: Splits, num_workers: int) -> list[Batch]:
    pictures = replace(data.train, pictures=data.train.pictures[:8])
    canvases = np.stack([letterbox(picture, 96) for picture in pictures.pictures])
    settings: dict[str, Any] = {"batch_size": 4, "augment": "light_flip", "seed": 0, "epoch": 0}
    return list(batches(pictures, canvases, **settings, num_workers=num_workers))


def made(config: TrainConfig) -> Detector:
    torch.manual_seed(0)
    return build(config.model, 2)


@pytest.mark.parametrize(
    "name",
    [
        *get_args(NewDetector),
        "retinanet_resnet50_fpn_v2",  # what `init` writes on a machine with a GPU
        "fasterrcnn_mobilenet_v3_large_fpn",  # its norms have no eps
        "ssdlite320_mobilenet_v3_large",
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_detector_trains_in_every_precision(
    tiny: Splits, tiny_config: Make, tmp_path: Path, name: str, precision: str
) -> None:
    changes = {"model.detector": name, "train.precision": precision}
    config = tiny_config({**changes, "train.unfreeze.depth": "all"})
    result, reports = trained(config, tiny, tmp_path)
    assert result.epochs == 5
    for report in reports:
        assert all(math.isfinite(loss) for loss in report.losses.values())
        assert report.system["gpu_memory_gb"] > 0
    first, last = (sum(reports[i].losses.values()) for i in (0, -1))
    assert last < first


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sgd_trains_in_every_precision(
    tiny: Splits, tiny_config: Make, tmp_path: Path, precision: str
) -> None:
    changes = {"train.optimizer": "sgd", "train.precision": precision}
    _, reports = trained(tiny_config(changes), tiny, tmp_path)
    losses = [sum(report.losses.values()) for report in reports]
    assert losses[-1] < losses[0]


def test_frozen_stages_keep_their_bits(tiny: Splits, tiny_config: Make) -> None:
    config = tiny_config()
    detector, first = made(config).to(GPU), made(config)
    set_depth(detector, detector.stages, 2)
    trainable = [p for p in detector.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3)
    train_for_an_epoch(detector, optimizer, few_batches(tiny, 2))
    before, after = first.backbone.state_dict(), detector.backbone.cpu().state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    unfrozen = {
        name for stage in detector.stages[3:] for name in (*stage.parameters, *stage.buffers)
    }
    assert changed and changed <= unfrozen


def test_a_stopped_trial_resumes(tiny: Splits, tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config({"train.unfreeze.depth": 2})
    _, unbroken = trained(config, tiny, tmp_path / "unbroken")
    trained(config, tiny, tmp_path / "trial", until=3)
    _, reports = trained(config, tiny, tmp_path / "trial")
    assert [r.epoch for r in reports] == [1, 2, 3, 4, 5]
    for one, other in zip(unbroken, reports, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=0.05)


@pytest.mark.parametrize("ignores", [False, True])
@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])  # none of these draws samples
def test_the_first_losses_are_the_same_as_on_a_cpu(
    tiny: Splits, tiny_config: Make, name: str, ignores: bool
) -> None:
    (batch, _), losses = few_batches(tiny, 0), []
    if ignores:
        targets = [{**target, "ignored": target["boxes"] / 2} for target in batch.targets]
        batch = batch._replace(targets=targets)
    config = tiny_config({"model.detector": name})
    for device in (torch.device("cpu"), GPU):
        model = made(config).to(device).train()
        losses.append({n: float(loss.detach()) for n, loss in model(*batch.to(device)).items()})
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])
@pytest.mark.parametrize("depth", [0, 5])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_host_never_waits_for_the_gpu_in_an_epoch(
    tiny: Splits, tiny_config: Make, name: str, depth: int, optimizer: str
) -> None:
    config = tiny_config({"model.detector": name, "train.optimizer": optimizer})
    detector = made(config).to(GPU)
    set_depth(detector, detector.stages, depth)
    steps = optim.build(detector, config.train)
    train_for_an_epoch(
        detector, steps, few_batches(tiny, 2)
    )  # records the graph and fills the moments
    pinned = few_batches(tiny, 2)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_for_an_epoch(detector, steps, pinned)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_that_would_spoil_the_weights_is_skipped(
    tiny: Splits, tiny_config: Make, optimizer: str, precision: str
) -> None:
    config = tiny_config({"train.optimizer": optimizer, "train.precision": precision})
    detector = made(config).to(GPU)
    set_depth(detector, detector.stages, 0)
    steps = optim.build(detector, config.train)
    for group in steps.param_groups:
        group["lr"] = 0.1
    first, second = few_batches(tiny, 2)
    infinite = [{**target, "boxes": target["boxes"] * torch.inf} for target in second.targets]
    batches = [second._replace(targets=infinite), first, first]
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    with pytest.raises(DivergedError, match="not finite at epoch 1, step 0: "):
        train_for_an_epoch(detector, steps, batches[:1], precision)
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
    with pytest.raises(DivergedError, match="not finite at epoch 1, step 0: "):
        train_for_an_epoch(detector, steps, batches, precision)
    assert all(torch.isfinite(p).all() for p in detector.parameters())


def train_for_an_epoch(
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    batches: list[Batch],
    precision: str = resolve_precision("auto"),
) -> None:
    train_one_epoch(
        detector,
        optimizer,
        torch.amp.GradScaler("cuda", enabled=precision == "fp16"),
        batches,
        set_step=lambda step: None,
        precision=precision,
        clip_norm=10.0,
        seed=0,
        epoch=0,
    )


def smaller(batch: Batch) -> Batch:
    """The batch without its last picture."""
    return Batch(batch.pictures[:-1], batch.targets[:-1])


def steps_of(detector: Detector, data: Splits, depth: int) -> list[list[float]]:
    """Losses and gradient norms, of a full batch and of one that is a picture smaller."""
    steps = []
    set_depth(detector, detector.stages, depth)
    first, second = few_batches(data, 0)
    for step, batch in enumerate([first, smaller(second), first]):
        torch.manual_seed(step)
        detector.zero_grad()
        with autocast(GPU, "fp32"):
            losses = detector(*batch.to(GPU))
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        norms = [float(p.grad.norm()) for p in detector.parameters() if p.grad is not None]
        steps.append([*[float(loss.detach()) for loss in losses.values()], *norms])
    return steps


@pytest.mark.parametrize("name", get_args(NewDetector))
def test_steps_from_a_recorded_graph_are_the_same(
    tiny: Splits, tiny_config: Make, name: str
) -> None:
    detector = made(tiny_config({"model.detector": name})).to(GPU)
    for depth in (0, 2, 5):
        detector.cuda_graphs.off = True
        alone = steps_of(detector, tiny, depth)
        detector.cuda_graphs.off = False
        recorded = steps_of(detector, tiny, depth)
        assert detector.cuda_graphs.recorded is not None
        for one, other in zip(alone, recorded, strict=True):
            assert one == pytest.approx(other, rel=0.02, abs=1e-4)


@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn"])
def test_a_model_that_cannot_be_recorded_trains_the_same_way(
    tiny: Splits, tiny_config: Make, name: str
) -> None:
    detector = made(tiny_config({"model.detector": name})).to(GPU)
    outputs = detector.head.outputs

    def synchronizing(features: Any) -> HeadOutputs:
        assert all(bool(torch.isfinite(m).all()) for m in features.values())
        return outputs(features)

    detector.head.outputs = synchronizing  # type: ignore[method-assign]
    first = steps_of(detector, tiny, 2)
    assert detector.cuda_graphs.off and detector.cuda_graphs.recorded is None
    for one, other in zip(first, steps_of(detector, tiny, 2), strict=True):
        assert one == pytest.approx(other, rel=0.02, abs=1e-4)


def test_batch_norm_that_adapts_is_not_recorded(tiny: Splits, tiny_config: Make) -> None:
    detector = made(tiny_config()).to(GPU)
    set_depth(detector, detector.stages, 5, adapt_statistics=True)
    detector(*few_batches(tiny, 0)[0].to(GPU))
    assert detector.cuda_graphs.recorded is None


def test_batches_made_ahead_are_the_same_in_pinned_memory(tiny: Splits) -> None:
    with num_workers_for(GPU) as num_workers:
        assert num_workers == 3
        ahead = few_batches(tiny, num_workers)
    for one, other in zip(few_batches(tiny, 0), ahead, strict=True):
        assert other.pictures.is_pinned()
        assert other.pictures.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(one.pictures, other.pictures)
        assert torch.equal(one.to(GPU).pictures.cpu(), other.to(GPU).pictures.cpu())


def test_cached_features_are_the_outputs_of_the_frozen_stages(
    tiny: Splits, tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config = tiny_config()
    detector = made(config).to(GPU)
    split = replace(tiny.val, pictures=tiny.val.pictures[:4])
    canvases = np.stack([letterbox(picture, 96) for picture in split.pictures])
    cached = cache_frozen_features(detector, 2, config, [(split, canvases)], tmp_path)["val"]
    assert cached.count == 4
    pictures = torch.from_numpy(canvases).permute(0, 3, 1, 2).to(GPU)
    with torch.no_grad():
        computed = detector.eval().features(pictures)
        from_cache = detector.features(pictures, cached(range(4), [False] * 4).to(GPU))
    for name in computed:
        torch.testing.assert_close(from_cache[name], computed[name], rtol=1e-3, atol=1e-3)


def test_too_little_memory_raises_out_of_memory(
    tiny: Splits, tiny_config: Make, tmp_path: Path
) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(OutOfMemoryError, match="CUDA out of memory"):
            trained(tiny_config({"train.unfreeze.depth": "all"}), tiny, tmp_path)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_probe_measures_memory_and_time(tiny: Splits, tiny_config: Make) -> None:
    small, large = (
        gpu_memory_fraction(tiny_config({"train.unfreeze.batch_size": size}), tiny, 4)
        for size in (1, 12)
    )
    assert 0 < small <= large < 1
    timing = time_epochs(tiny_config(), tiny, 4)
    assert 0 < timing.head < 60 and 0 < timing.unfrozen < 60
    assert torch.get_num_threads() == 4


def test_an_export_from_a_gpu_detects_the_same_on_a_cpu(
    tiny: Splits, tiny_config: Make, tmp_path: Path
) -> None:
    config = tiny_config({"train.unfreeze.depth": "all", "train.unfreeze.lr": 2e-3})
    trained(config, tiny, tmp_path / "trial")
    out = tmp_path / "export"
    export(tmp_path / "trial" / BEST, config, tiny.categories, tiny.digest, out)
    detector, _ = load_export(out)
    canvases = np.stack([letterbox(picture, 96) for picture in tiny.val.pictures])
    best: list[dict[int, float]] = [{}, {}]
    for scores, device in zip(best, (torch.device("cpu"), GPU), strict=True):
        for result in detect(detector.to(device), tiny.val, canvases):
            image = result["image_id"]
            scores[image] = max(scores.get(image, 0.0), result["score"])
    assert best[0] and best[0] == pytest.approx(best[1], abs=0.01)
