"""What a worker runs: each exception becomes an end that the study knows."""

import errno
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from search.running.trial import STACKS_FILE, phase_cache, run_trial
from search.space.locations import trial_folder
from search.study.record import End
from trainer.config import Data, TrainConfig
from trainer.data.dataset import Splits
from trainer.evaluation.review import PREDICTIONS, REVIEW
from trainer.machine_errors import OutOfMemoryError
from trainer.model.checkpoint import BEST, LAST, save

Make = Callable[..., Any]
HANG = """
import sys, time
from pathlib import Path
from trainer.training import fit as fit_module
from search.running.trial import run_trial
from trainer.config import Data, TrainConfig
from trainer.data.loading import load


def hang(*_, **__):
    time.sleep(100)
    yield


fit_module.batches = hang
data = load(Data(train=sys.argv[1], val=sys.argv[2]), Path("made"))
model = {"backbone": "resnet18", "weights": "none", "image_size": 96}
config = TrainConfig.model_validate({"model": model}).model_dump(mode="json")
asked = {"number": 0, "config": config}
run_trial(asked, data=data, folder=Path(), threads=1, gpu_fraction=0, hang_timeout=10, disk_cap=0)
"""


def run(config: TrainConfig, data: Splits) -> dict[str, str]:
    asked = {"number": 3, "config": config.model_dump(mode="json")}
    threads = torch.get_num_threads()
    Path("kept").mkdir(exist_ok=True)
    return run_trial(
        asked,
        data=data,
        folder=Path("kept"),
        threads=threads,
        gpu_fraction=0,
        hang_timeout=60,
        disk_cap=1e9,
    )


def test_a_node_without_the_folder_of_the_search_trains_nothing(
    tiny: Splits, tiny_config: Make
) -> None:
    asked = {"number": 3, "config": tiny_config().model_dump(mode="json")}
    ended = run_trial(
        asked,
        data=tiny,
        folder=Path("gone"),
        threads=1,
        gpu_fraction=0,
        hang_timeout=60,
        disk_cap=1e9,
    )
    assert ended["end"] == End.ERROR and "mount the storage on every node" in ended["text"]
    assert not Path("gone").exists()


def test_a_full_disk_is_no_end_of_the_trial(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trainer.training.fit.save", full)
    assert run(tiny_config(), tiny) == {"full_disk": "[Errno 28] No space left on device"}


def test_a_worker_whose_gpu_failed_says_so_and_dies(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    def dies(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("search.running.trial.fit", fails)
    monkeypatch.setattr("search.running.trial.os._exit", dies)
    with pytest.raises(SystemExit):
        run(tiny_config(), tiny)
    assert "unspecified launch failure" in (trial_folder(Path("kept"), 3) / STACKS_FILE).read_text()


def test_a_worker_whose_gpu_is_gone_dies_however_its_trial_ended(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OutOfMemoryError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED")

    def dies(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("search.running.trial.fit", fails)
    assert run(tiny_config(), tiny)["end"] == End.OUT_OF_MEMORY
    monkeypatch.setattr("search.running.trial.has_lost_accelerator", lambda: True)
    monkeypatch.setattr("search.running.trial.os._exit", dies)
    with pytest.raises(SystemExit):
        run(tiny_config(), tiny)
    assert (
        "CUBLAS_STATUS_NOT_INITIALIZED" in (trial_folder(Path("kept"), 3) / STACKS_FILE).read_text()
    )


def test_a_gpu_that_fails_in_the_review_ends_the_worker(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    def dies(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("search.running.trial.tune.report", lambda _: None)
    monkeypatch.setattr("trainer.evaluation.review._review", fail)
    config = tiny_config({"train.head.epochs": 0, "train.unfreeze.epochs": 1})
    with monkeypatch.context() as patch:
        patch.setattr("search.running.trial.os._exit", dies)
        with pytest.raises(SystemExit):
            run(config, tiny)
    # the next worker starts with all epochs done and the review begun
    assert run(config, tiny) == {"end": End.FINISHED}


def test_a_stopped_trial_frees_its_detector(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    detectors: list[Any] = []

    def stop(*_: Any, **__: Any) -> None:
        detector = torch.nn.Linear(1, 1)
        detectors.append(weakref.ref(detector))
        raise SystemExit  # as Tune does within tune.report

    monkeypatch.setattr("search.running.trial.fit", stop)
    with pytest.raises(SystemExit) as raised:
        run(tiny_config(), tiny)
    assert raised.value.__traceback__ is not None and detectors[0]() is None


def test_a_worker_that_hangs_dumps_its_stacks_and_dies(tmp_path: Path, tiny_data: Data) -> None:
    script = tmp_path / "hang.py"
    script.write_text(HANG)
    line = [sys.executable, script, tiny_data.train, tiny_data.val]
    done = subprocess.run([*map(str, line)], cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 1
    stacks = (tmp_path / "trials" / "0" / STACKS_FILE).read_text()
    assert "Timeout" in stacks and "in hang" in stacks


def test_a_trial_that_diverges_ends_as_diverged(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(truth: Any, outputs: Any, anchors: Any, **_: Any) -> dict[str, torch.Tensor]:
        classes, boxes = outputs["cls_logits"].sum(), outputs["bbox_regression"].sum()
        return {"classification": classes * float("nan"), "bbox_regression": boxes}

    monkeypatch.setattr("trainer.model.heads.retinanet_losses", loss)
    ended = run(tiny_config(), tiny)
    assert ended["end"] == End.DIVERGED
    assert ended["text"]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_finished_trial_is_reviewed_and_a_stopped_one_is_not(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    def report(_: dict[str, str]) -> None:
        if stopped:
            raise SystemExit  # as Tune does

    monkeypatch.setattr("search.running.trial.tune.report", report)
    config = tiny_config({"train.head.epochs": 0, "train.unfreeze.epochs": 1})
    if stopped:
        with pytest.raises(SystemExit):
            run(config, tiny)
    else:
        assert run(config, tiny) == {"end": End.FINISHED}
    assert Path("kept/trials/3", REVIEW, PREDICTIONS).is_file() is not stopped


def test_a_failed_review_does_not_change_the_end_of_the_trial(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("search.running.trial.tune.report", lambda _: None)
    monkeypatch.setattr("trainer.evaluation.review.detect", fail)
    config = tiny_config({"train.head.epochs": 0, "train.unfreeze.epochs": 1})
    assert run(config, tiny) == {"end": End.FINISHED}


def test_an_error_is_reported_with_its_traceback(tiny: Splits, tiny_config: Make) -> None:
    ended = run(tiny_config({"train.unfreeze.depth": 99}), tiny)
    assert ended["end"] == End.ERROR
    assert ended["text"].startswith("Traceback")
    assert "train.unfreeze.depth: 99" in ended["text"]


def test_a_search_reuses_the_phases_of_the_searches_next_to_it() -> None:
    trial = Path("first/trials/0")
    save({"model": {}, "reports": [{"epoch": 1, "forked": False}]}, trial / LAST)
    save({"model": {}, "report": {}}, trial / BEST)
    phase_cache(Path("first"), 1e9).publish("key", trial)
    second = phase_cache(Path("second"), 1e9)
    forked = second.fork("key", Path("second/trials/0"))
    assert forked is not None and forked["reports"] == [{"epoch": 1, "forked": True}]
    assert not second.folder.exists()


def test_a_worker_imports_neither_optuna_nor_mlflow() -> None:
    code = "import sys, search.running.trial; print({'optuna', 'mlflow'} & sys.modules.keys())"
    worker = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert worker.stdout.strip() == "set()"
