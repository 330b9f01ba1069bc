"""Scores are COCO's; detections carry the data set's ids and pixels."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainer.config import Data
from trainer.data.dataset import Picture, Split, Splits
from trainer.data.loading import load_split
from trainer.evaluation.coco_metrics import FIGURES, GroundTruth, measure, score, score_finally
from trainer.evaluation.detections import detect

from .oracle import SIZE, Oracle, canvases, perfect

MakePicture = Callable[..., Picture]


MakeSplit = Callable[..., Split]


def detection(id: int, category: int, box: list[float], certainty: float = 0.9) -> dict[str, Any]:
    return {"image_id": id, "category_id": category, "bbox": box, "score": certainty}


def guesses(split: Split) -> list[dict[str, Any]]:
    """Detections of every quality: shifted, of the wrong class, twice, out of nowhere."""
    draw = np.random.default_rng(1)
    results = []
    for picture in split.pictures:
        for box, label in zip(picture.boxes, picture.labels, strict=True):
            for shift in (1, 4, 9):
                moved = box + draw.normal(0, shift, 4)
                category = split.categories[(label - 1 + (shift == 9)) % 2].id
                results.append(
                    detection(picture.id, category, np.abs(moved).tolist(), float(draw.random()))
                )
        results.append(detection(picture.id, 7, [1.0, 1.0, 9.0, 9.0], float(draw.random())))
    return results


def test_perfect_detections_score_1(tiny: Splits) -> None:
    results = detect(perfect(tiny.val), tiny.val, canvases(6), batch_size=4)
    metrics = score(GroundTruth(tiny.val), results)
    assert metrics["map"] == pytest.approx(1.0)
    assert metrics["mar_100"] == pytest.approx(1.0)
    assert metrics.per_class == pytest.approx({"red": 1.0, "blue": 1.0})


def test_what_is_measured_are_the_figures_and_their_detections(tiny: Splits) -> None:
    metrics, results = measure(perfect(tiny.val), tiny.val, SIZE)
    assert metrics["map"] == pytest.approx(1.0)
    assert len(results) == sum(len(picture.boxes) for picture in tiny.val.pictures)


def test_final_figures_are_those_of_a_direct_run_of_pycocotools(
    tiny: Splits, tiny_data: Data
) -> None:
    results = guesses(tiny.val)
    metrics = score_finally(tiny.val, json.loads(json.dumps(results)))
    truth = COCO(str(tiny_data.val))
    direct = COCOeval(truth, truth.loadRes(results), "bbox")
    direct.evaluate()
    direct.accumulate()
    direct.summarize()
    expected = {n: None if v < 0 else v for n, v in zip(FIGURES, direct.stats, strict=True)}
    assert metrics.figures == expected
    assert 0.05 < metrics["map"] < 0.95


def crowded(count: int, make_picture: MakePicture, make_split: MakeSplit) -> Split:
    """Pictures with boxes of all sizes, crowds among them, and some without any."""
    draw = np.random.default_rng(count)
    pictures = []
    for id in range(3, 3 + count):
        places = draw.uniform(0, 300, (int(draw.integers(0, 12)), 2))
        sizes = np.exp(draw.uniform(1.5, 5.5, places.shape))
        boxes = [
            (int(draw.integers(1, 3)), *map(float, [*place, *size]))
            for place, size in zip(places, sizes, strict=True)
        ]
        crowd = tuple(np.flatnonzero(draw.random(len(boxes)) < 0.1))
        pictures.append(make_picture(id, boxes, size=(640, 640), crowd=crowd))
    return make_split(*pictures)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_the_figures_of_an_epoch_are_the_bits_of_the_final_ones(
    count: int, make_picture: MakePicture, make_split: MakeSplit
) -> None:
    split = crowded(count, make_picture, make_split)
    results = guesses(split)
    assert score(GroundTruth(split), results) == score_finally(split, results)
    ties = [{**result, "score": round(result["score"], 1)} for result in results]
    assert score(GroundTruth(split), ties) == score_finally(split, ties)


def test_objects_beyond_the_hundredth_count_where_so_many_are_detected(
    make_picture: MakePicture, make_split: MakeSplit
) -> None:
    places = [(1.0, 37.0 * (i % 17), 39.0 * (i // 17), 20.0, 20.0) for i in range(204)]
    split = make_split(*(make_picture(id, places, size=(640, 480)) for id in (1, 2)))
    results = [
        detection(picture.id, 3, box.tolist(), 0.9 - 0.001 * i)
        for picture in split.pictures
        for i, box in enumerate(picture.boxes)
    ]
    cocos = score_finally(split, results)
    assert cocos["map"] == pytest.approx(0.495, abs=5e-4)  # which a perfect detector gets there
    assert (cocos.detections, cocos.at_detections) == (100, {})
    metrics = score_finally(split, results, 300)
    assert metrics == score(GroundTruth(split), results, 300)
    assert (metrics.figures, metrics.per_class) == (cocos.figures, cocos.per_class)
    assert metrics["map"] == metrics.at_detections["map"] == pytest.approx(1.0)
    assert metrics["mar_300"] == pytest.approx(1.0) and metrics.detections == 300
    assert metrics["mar_10"] == cocos["mar_10"]
    assert score(GroundTruth(split), results, 150)["map"] == pytest.approx(150 / 204, abs=0.01)
    assert score_finally(split, results[:50], 20) == replace(
        score_finally(split, results[:50]), detections=20
    )
    nothing = score_finally(split, [], 300)
    assert nothing.at_detections.keys() == metrics.at_detections.keys()
    assert nothing["map"] == 0.0


def test_the_mean_of_the_classes_is_the_map(tiny: Splits) -> None:
    metrics = score(GroundTruth(tiny.val), guesses(tiny.val))
    assert np.mean(list(metrics.per_class.values())) == pytest.approx(metrics["map"])


def test_no_detections_score_0(tiny: Splits) -> None:
    metrics = score(GroundTruth(tiny.val), [])
    assert set(metrics.figures) == set(FIGURES)
    lacking = {name for name, value in metrics.figures.items() if value is None}
    assert lacking == {"map_large", "mar_large"}  # the split has no large box
    assert {value for name, value in metrics.figures.items() if name not in lacking} == {0.0}
    assert metrics.per_class == {"red": 0.0, "blue": 0.0}


@pytest.mark.parametrize(
    "measured", [lambda split, results: score(GroundTruth(split), results), score_finally]
)
@pytest.mark.parametrize("boxes", [[], [(1, 5, 5, 20, 20)]])
def test_what_has_no_truth_is_none_whether_or_not_something_is_detected(
    make_picture: MakePicture, make_split: MakeSplit, boxes: Any, measured: Any
) -> None:
    split = make_split(make_picture(1, boxes))  # nothing at all, or small and red alone
    wrong = [detection(1, 3, [60, 40, 20, 20]), detection(1, 7, [60, 40, 20, 20])]
    nothing, something = measured(split, []), measured(split, wrong)
    assert nothing == something
    assert nothing.per_class == {"red": 0.0 if boxes else None, "blue": None}
    assert nothing.figures["map"] == (0.0 if boxes else None)
    assert nothing.figures["map_large"] is None


def test_a_detector_that_finds_nothing_scores_0(tiny: Splits) -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    blind: Any = Oracle([nothing] * 6)
    assert score(GroundTruth(tiny.val), detect(blind, tiny.val, canvases(6)))["map"] == 0.0


def test_a_crowd_is_no_miss_and_a_detection_in_it_no_mistake(
    make_picture: MakePicture, make_split: MakeSplit
) -> None:
    boxes = [(1, 5, 5, 20, 20), (1, 40, 10, 50, 50)]
    truth = GroundTruth(make_split(make_picture(1, boxes, crowd=(1,))))
    right = detection(1, 3, [5, 5, 20, 20], 0.5)
    assert score(truth, [right, detection(1, 3, [45, 15, 20, 20], 0.9)])["map"] == pytest.approx(
        1.0
    )
    assert score(truth, [right, detection(1, 3, [0, 50, 20, 20], 0.9)])["map"] < 0.6


def test_what_a_split_lacks_is_none_but_counts_as_0(
    make_picture: MakePicture, make_split: MakeSplit
) -> None:
    truth = GroundTruth(make_split(make_picture(1, [(1, 5, 5, 20, 20)])))  # small, and red alone
    metrics = score(truth, [detection(1, 3, [5, 5, 20, 20])])
    assert metrics.per_class == {"red": pytest.approx(1.0), "blue": None}
    assert metrics.figures["map_large"] is None
    assert metrics["map_large"] == 0.0


def test_a_split_without_boxes_is_no_exception(
    make_picture: MakePicture, make_split: MakeSplit
) -> None:
    truth = GroundTruth(make_split(make_picture()))
    assert score(truth, [detection(1, 3, [5, 5, 20, 20])])["map"] == 0.0


def test_areas_are_the_data_sets_where_it_has_them(tiny_data: Data, tmp_path: Path) -> None:
    assert tiny_data.val
    content = json.loads(tiny_data.val.read_text())
    for i, annotation in enumerate(content["annotations"]):  # of a segmentation, unknown, nonsense
        annotation["area"] = (1e4, 0, -1)[i % 3]
    place = tmp_path / "areas.json"
    place.write_text(json.dumps(content))
    images = tiny_data.val.parent / "images"
    split = load_split(Data(train=place, images=images), "val", tmp_path / "cache")
    results = guesses(split)
    truth = COCO()
    boxes = {a["id"]: a["bbox"] for a in content["annotations"]}
    truth.dataset = content | {
        "annotations": [
            {**a, "area": 1e4 if a["area"] == 1e4 else boxes[a["id"]][2] * boxes[a["id"]][3]}
            for a in content["annotations"]
        ]
    }
    truth.createIndex()
    run = COCOeval(truth, truth.loadRes(results), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    figures = score_finally(split, results).figures
    for name, index in (("map", 0), ("map_small", 3), ("map_medium", 4), ("map_large", 5)):
        assert (figures[name] if figures[name] is not None else -1) == run.stats[index]
