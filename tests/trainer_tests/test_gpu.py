"""What is another path where there is a GPU: `make gpu-tests`."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from trainer.config import NewDetector, TrainConfig
from trainer.data.batches import Batch, batches, makers_for
from trainer.data.canvas import letterbox
from trainer.data.dataset import Splits
from trainer.epoch_report import EpochReport
from trainer.evaluation.coco_metrics import detect
from trainer.export.bundle import export, load_export
from trainer.machine_errors import OutOfMemory
from trainer.model.checkpoint import BEST
from trainer.model.detectors import Detector, build
from trainer.model.freezing import set_depth
from trainer.model.heads import Outputs
from trainer.precision import autocast, resolve
from trainer.training import optim
from trainer.training.engine import Diverged, train_one_epoch
from trainer.training.fit import Result, fit
from trainer.training.frozen_features import keep_outputs
from trainer.training.probe import memory_share, time_epochs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
GPU = torch.device("cuda")
Make = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Several cores, as a trial beside a GPU has them."""
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


def few_batches(data: Splits, makers: int) -> list[Batch]:
    pictures = replace(data.train, pictures=data.train.pictures[:8])
    canvases = np.stack([letterbox(picture, 96) for picture in pictures.pictures])
    settings: dict[str, Any] = {"batch_size": 4, "augment": "light_flip", "seed": 0, "epoch": 0}
    return list(batches(pictures, canvases, **settings, makers=makers))


def made(config: TrainConfig) -> Detector:
    torch.manual_seed(0)
    return build(config.model, 2)


@pytest.mark.parametrize(
    "detector",
    [
        *get_args(NewDetector),
        "retinanet_resnet50_fpn_v2",  # what `init` writes where there is a GPU
        "fasterrcnn_mobilenet_v3_large_fpn",  # its norms have no eps
        "ssdlite320_mobilenet_v3_large",
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_detector_trains_in_every_precision(
    tiny: Splits, tiny_config: Make, tmp_path: Path, detector: str, precision: str
) -> None:
    changes = {"model.detector": detector, "train.precision": precision}
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


def test_what_is_frozen_keeps_its_bits(tiny: Splits, tiny_config: Make) -> None:
    config = tiny_config()
    own, first = made(config).to(GPU), made(config)
    set_depth(own, own.stages, 2)
    optimizer = torch.optim.AdamW([p for p in own.parameters() if p.requires_grad], lr=1e-3)
    train_for_an_epoch(own, optimizer, few_batches(tiny, 2))
    before, after = first.backbone.state_dict(), own.backbone.cpu().state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    opened = {name for stage in own.stages[3:] for name in (*stage.parameters, *stage.buffers)}
    assert changed and changed <= opened


def test_a_trial_that_is_stopped_goes_on(tiny: Splits, tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config({"train.unfreeze.depth": 2})
    _, whole = trained(config, tiny, tmp_path / "whole")
    trained(config, tiny, tmp_path / "trial", until=3)
    _, reports = trained(config, tiny, tmp_path / "trial")
    assert [r.epoch for r in reports] == [1, 2, 3, 4, 5]
    for one, other in zip(whole, reports, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=0.05)


@pytest.mark.parametrize("ignores", [False, True])
@pytest.mark.parametrize("detector", ["retinanet", "fcos", "ssd"])  # of which none draws samples
def test_the_first_losses_are_those_of_a_cpu(
    tiny: Splits, tiny_config: Make, detector: str, ignores: bool
) -> None:
    (batch, _), found = few_batches(tiny, 0), []
    if ignores:
        targets = [{**own, "ignored": own["boxes"] / 2} for own in batch.targets]
        batch = batch._replace(targets=targets)
    config = tiny_config({"model.detector": detector})
    for where in (torch.device("cpu"), GPU):
        own = made(config).to(where).train()
        found.append({n: float(loss.detach()) for n, loss in own(*batch.to(where)).items()})
    assert found[1] == pytest.approx(found[0], rel=0.01)


@pytest.mark.parametrize("detector", ["retinanet", "fcos", "ssd"])
@pytest.mark.parametrize("depth", [0, 5])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_host_waits_for_nothing_in_an_epoch(
    tiny: Splits, tiny_config: Make, detector: str, depth: int, optimizer: str
) -> None:
    config = tiny_config({"model.detector": detector, "train.optimizer": optimizer})
    own = made(config).to(GPU)
    set_depth(own, own.stages, depth)
    steps = optim.build(own, config.train)
    train_for_an_epoch(own, steps, few_batches(tiny, 2))  # there are a graph and momentum then
    pinned = few_batches(tiny, 2)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_for_an_epoch(own, steps, pinned)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_that_would_spoil_the_weights_is_not_taken(
    tiny: Splits, tiny_config: Make, optimizer: str, precision: str
) -> None:
    config = tiny_config({"train.optimizer": optimizer, "train.precision": precision})
    own = made(config).to(GPU)
    set_depth(own, own.stages, 0)
    steps = optim.build(own, config.train)
    for group in steps.param_groups:
        group["lr"] = 0.1
    first, second = few_batches(tiny, 2)
    endless = [{**own, "boxes": own["boxes"] * torch.inf} for own in second.targets]
    batches = [second._replace(targets=endless), first, first]
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    with pytest.raises(Diverged, match="not finite at epoch 0, step 0: "):
        train_for_an_epoch(own, steps, batches[:1], precision)
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
    with pytest.raises(Diverged, match="not finite at epoch 0, step 0: "):
        train_for_an_epoch(own, steps, batches, precision)
    assert all(torch.isfinite(p).all() for p in own.parameters())


def train_for_an_epoch(
    own: Detector,
    optimizer: torch.optim.Optimizer,
    batches: list[Batch],
    precision: str = resolve("auto"),
) -> None:
    train_one_epoch(
        own,
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
    """Without its last picture."""
    return Batch(batch.pictures[:-1], batch.targets[:-1])


def steps_of(own: Detector, data: Splits, depth: int) -> list[list[float]]:
    """Losses and sizes of gradients, of a whole batch and of one that is a picture smaller."""
    found = []
    set_depth(own, own.stages, depth)
    first, second = few_batches(data, 0)
    for step, batch in enumerate([first, smaller(second), first]):
        torch.manual_seed(step)
        own.zero_grad()
        with autocast(GPU, "fp32"):
            losses = own(*batch.to(GPU))
        torch.stack(list(losses.values())).sum().backward()
        norms = [float(p.grad.norm()) for p in own.parameters() if p.grad is not None]
        found.append([*[float(loss.detach()) for loss in losses.values()], *norms])
    return found


@pytest.mark.parametrize("detector", get_args(NewDetector))
def test_recorded_steps_are_the_same(tiny: Splits, tiny_config: Make, detector: str) -> None:
    own = made(tiny_config({"model.detector": detector})).to(GPU)
    for depth in (0, 2, 5):
        own.cuda_graphs.off = True
        alone = steps_of(own, tiny, depth)
        own.cuda_graphs.off = False
        recorded = steps_of(own, tiny, depth)
        assert own.cuda_graphs.recorded is not None
        for one, other in zip(alone, recorded, strict=True):
            assert one == pytest.approx(other, rel=0.02, abs=1e-4)


@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn"])
def test_a_model_that_no_graph_holds_trains_all_the_same(
    tiny: Splits, tiny_config: Make, detector: str
) -> None:
    own = made(tiny_config({"model.detector": detector})).to(GPU)
    alike = own.head.outputs

    def asks(features: Any) -> Outputs:
        assert all(bool(torch.isfinite(m).all()) for m in features.values())
        return alike(features)

    own.head.outputs = asks  # type: ignore[method-assign]
    found = steps_of(own, tiny, 2)
    assert own.cuda_graphs.off and own.cuda_graphs.recorded is None
    for one, other in zip(found, steps_of(own, tiny, 2), strict=True):
        assert one == pytest.approx(other, rel=0.02, abs=1e-4)


def test_norms_that_follow_the_batch_are_not_recorded(tiny: Splits, tiny_config: Make) -> None:
    own = made(tiny_config()).to(GPU)
    set_depth(own, own.stages, 5, adapt_statistics=True)
    own(*few_batches(tiny, 0)[0].to(GPU))
    assert own.cuda_graphs.recorded is None


def test_batches_come_in_pinned_memory_and_are_the_same(tiny: Splits) -> None:
    with makers_for(GPU) as makers:
        assert makers == 3
        ahead = few_batches(tiny, makers)
    for one, other in zip(few_batches(tiny, 0), ahead, strict=True):
        assert other.pictures.is_pinned()
        assert other.pictures.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(one.pictures, other.pictures)
        assert torch.equal(one.to(GPU).pictures.cpu(), other.to(GPU).pictures.cpu())


def test_kept_outputs_are_what_the_frozen_stages_give(
    tiny: Splits, tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config = tiny_config()
    detector = made(config).to(GPU)
    split = replace(tiny.val, pictures=tiny.val.pictures[:4])
    canvases = np.stack([letterbox(picture, 96) for picture in split.pictures])
    kept = keep_outputs(detector, 2, config, [(split, canvases)], tmp_path)["val"]
    assert kept.count == 4
    pictures = torch.from_numpy(canvases).permute(0, 3, 1, 2).to(GPU)
    with torch.no_grad():
        own = detector.eval().features(pictures)
        read = detector.features(pictures, kept(range(4), [False] * 4).to(GPU))
    for name in own:
        torch.testing.assert_close(read[name], own[name], rtol=1e-3, atol=1e-3)


def test_too_little_memory_is_told_as_such(tiny: Splits, tiny_config: Make, tmp_path: Path) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(OutOfMemory, match="CUDA out of memory"):
            trained(tiny_config({"train.unfreeze.depth": "all"}), tiny, tmp_path)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_few_steps_are_measured(tiny: Splits, tiny_config: Make) -> None:
    small, large = (
        memory_share(tiny_config({"train.unfreeze.batch_size": size}), tiny, 4) for size in (1, 12)
    )
    assert 0 < small <= large < 1
    found = time_epochs(tiny_config(), tiny, 4)
    assert 0 < found.head < 60 and 0 < found.unfrozen < 60
    assert torch.get_num_threads() == 4


def test_what_was_trained_is_exported_to_files_that_a_cpu_reads(
    tiny: Splits, tiny_config: Make, tmp_path: Path
) -> None:
    config = tiny_config({"train.unfreeze.depth": "all", "train.unfreeze.lr": 2e-3})
    trained(config, tiny, tmp_path / "trial")
    out = tmp_path / "export"
    export(tmp_path / "trial" / BEST, config, tiny.categories, tiny.digest, out)
    detector, _ = load_export(out)
    canvases = np.stack([letterbox(picture, 96) for picture in tiny.val.pictures])
    best: list[dict[int, float]] = [{}, {}]
    for found, where in zip(best, (torch.device("cpu"), GPU), strict=True):
        for own in detect(detector.to(where), tiny.val, canvases):
            found[own["image_id"]] = max(found.get(own["image_id"], 0.0), own["score"])
    assert best[0] and best[0] == pytest.approx(best[1], abs=0.01)
