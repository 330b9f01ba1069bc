"""What a search gains from more nodes, and how soon a lost node's trials run again.

    python benchmarks/scaling.py [--seconds 4] [--nodes 1 2 4 8]

The same 32 trials of fixed length (they sleep: a report a second, no torch in the workers) run
through our searcher, scheduler and study, on 1, 2, 4 and 8 simulated nodes of one trial each. The
figure is the fraction of the ideal pace, starts of workers included. Then two trials run on two
nodes, each with room for both: the figure is the time from the death of a node's raylet to the
first step of its trial on the other node. The last line is the figures as one JSON object.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from driver import SPACE, _report
from ray import tune
from ray.cluster_utils import Cluster

from search.reporting.progress import Quiet
from search.running import run_trials
from search.running.tune.internals import configure_tune
from search.space.config import TrialResources
from search.space.space import read_space
from search.space.validation import checked_config
from search.study.record import End, to_json
from search.study.start_or_resume import open_search
from trainer.data.canvas import cache_folder
from trainer.data.loading import load

TRIALS = 32


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=4, help="of a trial, from 3")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--side", choices=["scale", "loss"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side = _scale if options.side == "scale" else _loss
        print(json.dumps(side(options.seconds, options.nodes[0])))
        return
    walls = {n: _in_new_process("scale", options.seconds, n) for n in options.nodes}
    shares = {n: round(TRIALS * options.seconds / n / wall, 3) for n, wall in walls.items()}
    again = _in_new_process("loss", 30, 2)
    figures = {"trials": TRIALS, "seconds_a_trial": options.seconds, "wall_seconds": walls}
    print(json.dumps({**figures, "share_of_ideal": shares, "running_again_seconds": again}))


def _in_new_process(side: str, seconds: int, nodes: int) -> float:
    line = [sys.executable, __file__, "--side", side]
    line += ["--seconds", str(seconds), "--nodes", str(nodes)]
    with tempfile.TemporaryDirectory(prefix="unfreeze-benchmark-") as place:
        done = subprocess.run(line, cwd=place, check=True, stdout=subprocess.PIPE, text=True)
    figure = float(done.stdout.splitlines()[-1])
    print(f"{side}, {nodes} nodes: {figure} s", file=sys.stderr)
    return figure


def _scale(seconds: int, nodes: int) -> float:
    cluster = _cluster(nodes, cpus=1)
    started = time.monotonic()
    _search(cluster, TRIALS, seconds, Path("steps"))
    return round(time.monotonic() - started, 2)


def _loss(seconds: int, nodes: int) -> float:
    """When both trials have begun, kill the node of the one that began first."""
    from threading import Thread

    cluster = _cluster(nodes, cpus=2)
    steps = Path("steps").absolute()
    killed: list[tuple[float, str]] = []

    def kill() -> None:
        while len({row[0] for row in _rows(steps)}) < 2:
            time.sleep(0.05)
        number, _, node = _rows(steps)[0]
        (killed_node,) = [n for n in cluster.worker_nodes if n.node_id == node]
        killed.append((time.time(), number))
        cluster.remove_node(killed_node, allow_graceful=False)

    Thread(target=kill, daemon=True).start()
    _search(cluster, 2, seconds, steps)
    moment, number = killed[0]
    node = _rows(steps)[0][2]
    again = [float(at) for n, at, on in _rows(steps) if n == number and on != node]
    return round(min(again) - moment, 2)


def _rows(file: Path) -> list[list[str]]:
    """Steps so far: trial, seconds since 1970, node."""
    return [row.split() for row in file.read_text().splitlines()] if file.is_file() else []


def _cluster(nodes: int, cpus: int) -> Cluster:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(nodes):
        cluster.add_node(num_cpus=cpus, object_store_memory=100 << 20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    return cluster


def _search(cluster: Cluster, trials: int, seconds: int, steps: Path) -> None:
    raw = {
        "name": "sleeping",
        "data": "digits",
        "cluster": cluster.address,
        "train": {"head": {"epochs": 0}, "unfreeze": {"epochs": seconds}},
        "space": SPACE,
        "search": {"trials": trials, "confirm": "off", "asha": "off"},
        "tracking": "off",
    }
    config = checked_config(raw, Path())
    data = load(config.data, cache_folder())
    space = read_space(config.space)
    study = open_search(config, space, data)
    study.precision = "fp32"
    study.trunk_cache = "off"
    reports = [to_json(_report(epoch)) for epoch in range(1, seconds + 1)]
    finished, file = str(End.FINISHED), str(steps.absolute())

    def sleeper(config: dict[str, Any], **_: Any) -> dict[str, str]:
        node = ray.get_runtime_context().get_node_id()
        for report in reports:
            with Path(file).open("a") as stream:
                stream.write(f"{config['number']} {time.time()} {node}\n")
            time.sleep(1)
            tune.report({"report": report})
        return {"end": finished}

    configure_tune()
    vars(run_trials)["run_trial"] = sleeper
    run_trials.run_trials(config, space, data, TrialResources(), study, Quiet())
    assert len(study.ended()) == trials
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
