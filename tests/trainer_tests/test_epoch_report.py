"""Reports of epochs: plain values, of this version and of earlier ones."""

import json
from dataclasses import asdict, replace

from trainer.epoch_report import EpochReport, GroupReport, read_report

REPORT = EpochReport(
    epoch=1,
    phase="head",
    depth=0,
    unfreeze_epoch=0,
    map=0.25,
    map_50=0.5,
    map_75=0.125,
    best_map=0.25,
    losses={"classification": 1.5},
    groups={"head": GroupReport(lr=0.1, weight_decay=0.0, trainable=3)},
    seconds=2.0,
    images_per_second=4.0,
    forked=False,
    images_from_cache=12,
    skipped=1,
)


def test_a_stored_report_reads_back() -> None:
    assert read_report(json.loads(json.dumps(asdict(REPORT)))) == REPORT


def test_a_former_name_of_a_field_is_read() -> None:
    raw = asdict(REPORT)
    raw["read"] = raw.pop("images_from_cache")
    assert read_report(raw) == REPORT


def test_fields_that_an_earlier_version_did_not_store_have_defaults() -> None:
    raw = asdict(REPORT)
    for name in ("images_from_cache", "skipped", "environment", "system"):
        del raw[name]
    assert read_report(raw) == replace(REPORT, images_from_cache=0, skipped=0)
