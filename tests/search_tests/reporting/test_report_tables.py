"""The tables of a report."""

from dataclasses import replace
from datetime import datetime

from search.reporting.report import read_result
from search.reporting.report_tables import facts, figures_table, trials_table

from ..conftest import MadeUp


def test_figures_of_all_detections_stand_below_cocos(made_up: MadeUp) -> None:
    result = read_result(made_up.config, made_up.study)
    more = {"detections": 300, "at_detections": {"map": 0.52, "map_small": None}}
    figures = figures_table(result.metrics | {"val": result.metrics["val"] | more})
    assert figures["heads"] == [
        *["AP", "AP50", "AP75", "AP small", "AP medium", "AP large"],
        *["AR 1", "AR 10", "AR 100", "AR small", "AR medium", "AR large"],
    ]
    val, all_of_val, test = figures["rows"]
    assert val == ["val", *["0.500"] * 12]
    assert all_of_val == ["val, 300 boxes a picture", "0.520", *["-"] * 11]
    assert test == ["test", "0.470", *["0.500"] * 11]


def test_the_table_shows_what_it_is_sorted_by(made_up: MadeUp) -> None:
    result = read_result(made_up.config, made_up.study)
    table = trials_table(result)
    fields = ["depth", "schedule", "lr"]
    assert table["heads"] == [
        *["", "trial", "AP", "AP50", "fresh mean", *fields],
        *["epochs", "min", "state"],
    ]
    (first, is_winner), (again, _), *others = table["rows"]
    best = result.rows[0].record.best
    mean = result.rows[0].mean
    assert is_winner and not any(is_best for _, is_best in others) and best and mean
    assert first[0] == ("1", 1) and again[0] == ("", 1)  # the run that confirms it has its rank
    assert first[2] == (f"{best.map:.3f}", best.map) and first[4] == (f"{mean:.3f}", mean)
    assert again[4] == ("", -1)
    assert first[-3:] == [("9", 9), ("0.3", 18.0), ("finished", "finished")]  # one was forked
    assert again[-2] == ("0.3", 20.0)


def test_the_facts_are_time_model_data_and_costs(made_up: MadeUp) -> None:
    config, study = made_up.config, made_up.study
    result = read_result(config, study)
    shown = dict(facts(result, study))
    starts = [r.started for r in study.records.values() if r.started]
    ends = [r.ended for r in study.records.values() if r.ended]
    first, last = (
        datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M %Z")
        for at in (min(starts), max(ends))
    )
    assert shown["when"] == f"{first} to {last}"
    assert shown["model"] == f"retinanet on {config.model.backbone}, weights none, 96 px, fp32"
    assert shown["data"] == "digest " + "d" * 12
    assert shown["a trial had"] == "-"
    for gpu_hours, hours in ((0.0, "1.50 CPU-hours"), (2.0, "2.00 GPU-hours")):
        costs = replace(result.costs, cpu_hours=1.5, gpu_hours=gpu_hours)
        assert dict(facts(replace(result, costs=costs), study))["spent"] == hours
