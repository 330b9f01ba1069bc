"""What the searcher, scheduler, study and MLflow cost the driver, with trials that only sleep.

    python benchmarks/driver.py [--trials 1000] [--at-once 16]

Two sides, each in a separate process: a search of sleeping trials (1 s, one report) with
everything on, and the same Tuner with random search and nothing else. Then 16 trials that report 10
times a second, with tracking on and off (medians of 3 runs each, in turns). The last line is the
figures as one JSON object.
"""

import argparse
import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import ray
from ray import tune

from search.reporting.progress import Quiet
from search.running import run_trials
from search.running.tune.internals import configure_tune
from search.space.config import SearchConfig, TrialResources
from search.space.space import read_space
from search.space.validation import checked_config
from search.study.record import End, to_json
from search.study.start_or_resume import open_search
from trainer.data.canvas import cache_folder
from trainer.data.loading import load
from trainer.epoch_report import EpochReport, GroupReport

SPACE = {
    "train.unfreeze.lr": {"log": [1e-4, 1e-2]},
    "train.unfreeze.weight_decay": {"log": [1e-6, 1e-2]},
    "train.unfreeze.depth": {"int": [0, "all"]},
}
REPORTS = 100
"""Reports of a trial that reports 10 times a second."""
ROUNDS = 3


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--side", choices=["plain", "ours", "untracked"], help=argparse.SUPPRESS)
    parser.add_argument("--reports", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(_side(options)))
        return
    plain = _in_new_process("plain", options.trials, options.at_once, 1)
    ours = _in_new_process("ours", options.trials, options.at_once, 1)
    # the start of the workers takes half of these short runs: hence medians, in turns
    pairs = [
        [
            _in_new_process(side, options.at_once, options.at_once, REPORTS)
            for side in ("untracked", "ours")
        ]
        for _ in range(ROUNDS)
    ]
    off, on = (
        {key: median(pair[side][key] for pair in pairs) for key in ("wall", "cpu")}
        for side in (0, 1)
    )
    reports = options.at_once * REPORTS
    print(
        json.dumps(
            {
                "trials": options.trials,
                "plain_seconds": plain["wall"],
                "ours_seconds": ours["wall"],
                "ratio": round(ours["wall"] / plain["wall"], 3),
                "driver_ms_a_trial": {
                    "plain": round(1000 * plain["cpu"] / options.trials, 1),
                    "ours": round(1000 * ours["cpu"] / options.trials, 1),
                },
                "untracked_seconds": off["wall"],
                "tracked_seconds": on["wall"],
                "tracking_ratio": round(on["wall"] / off["wall"], 3),
                "driver_ms_a_report": {
                    "untracked": round(1000 * off["cpu"] / reports, 1),
                    "tracked": round(1000 * on["cpu"] / reports, 1),
                },
            }
        )
    )


def _in_new_process(side: str, trials: int, at_once: int, reports: int) -> dict[str, float]:
    line = [sys.executable, __file__, "--side", side, "--trials", str(trials)]
    line += ["--at-once", str(at_once), "--reports", str(reports)]
    with tempfile.TemporaryDirectory(prefix="unfreeze-benchmark-") as place:
        done = subprocess.run(line, cwd=place, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(side, trials, "trials,", reports, "reports each:", figures, file=sys.stderr)
    return figures


def _side(options: argparse.Namespace) -> dict[str, float]:
    """Wall and processor seconds of the driver, from the first trial to the last."""
    ray.init(
        address="local",
        num_cpus=options.at_once,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1])}},
    )
    configure_tune()
    run = _plain if options.side == "plain" else _ours
    try:
        wall, cpu = run(options)
    finally:
        ray.shutdown()
    return {"wall": round(wall, 2), "cpu": round(cpu, 2)}


def _plain(options: argparse.Namespace) -> tuple[float, float]:
    def sleeper(config: dict[str, Any]) -> None:
        for _ in range(options.reports):
            time.sleep(1 / max(1, min(options.reports, 10)))
            tune.report({"map": random.random()})

    with tempfile.TemporaryDirectory() as scratch:
        tuner = tune.Tuner(
            tune.with_resources(sleeper, {"cpu": 1}),
            param_space={
                "lr": tune.loguniform(1e-4, 1e-2),
                "weight_decay": tune.loguniform(1e-6, 1e-2),
                "depth": tune.randint(0, 6),
            },
            tune_config=tune.TuneConfig(num_samples=options.trials, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        )
        started, used = time.monotonic(), time.process_time()
        tuner.fit()
        return time.monotonic() - started, time.process_time() - used


def _ours(options: argparse.Namespace) -> tuple[float, float]:
    config = _config(options)
    space = read_space(config.space)
    data = load(config.data, cache_folder())
    study = open_search(config, space, data)
    study.precision = "fp32"
    study.trunk_cache = "off"
    # made here: workers without our imports start as fast as those of the other side
    texts = [[to_json(_report(epoch + 1)) for epoch in range(options.reports)] for _ in range(50)]
    end = End.FINISHED.value

    def sleeper(config: dict[str, Any], **_: Any) -> dict[str, str]:
        for text in texts[config["number"] % len(texts)]:
            time.sleep(1 / max(1, min(options.reports, 10)))
            tune.report({"report": text})
        return {"end": end}

    vars(run_trials)["run_trial"] = sleeper
    started, used = time.monotonic(), time.process_time()
    run_trials.run_trials(config, space, data, TrialResources(), study, Quiet())
    wall, cpu = time.monotonic() - started, time.process_time() - used
    assert len(study.ended()) == options.trials
    return wall, cpu


def _config(options: argparse.Namespace) -> SearchConfig:
    raw = {
        "name": "sleeping",
        "data": "digits",
        "train": {"head": {"epochs": 0}, "unfreeze": {"epochs": max(3, options.reports)}},
        "space": SPACE,
        "search": {"trials": options.trials, "confirm": "off"},
        "tracking": "off" if options.side == "untracked" else None,
    }
    return checked_config(raw, Path())


def _report(epoch: int) -> EpochReport:
    value = random.random()
    groups = {
        name: GroupReport(1e-3, 1e-4, 1000)
        for part in ("stage1", "stage2", "stage3", "stage4", "stage5", "neck", "head")
        for name in (part, f"{part} no decay")
    }
    return EpochReport(
        epoch=epoch,
        phase="unfreeze",
        depth=3,
        unfreeze_epoch=epoch,
        map=value,
        map_50=value,
        map_75=value,
        best_map=value,
        losses={"classification": 1.0, "bbox_regression": 1.0},
        groups=groups,
        seconds=1.0,
        images_per_second=1.0,
        forked=False,
    )


if __name__ == "__main__":
    main()
