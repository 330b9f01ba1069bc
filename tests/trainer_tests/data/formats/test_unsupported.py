"""Formats that are not read are named, in a folder, as a file, and in a YAML."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.config import Data, InputError
from trainer.data.checks.examine import examine
from trainer.data.formats.layouts import find_layout

LABELME = {"version": "5.0", "shapes": [{"label": "cat"}], "imagePath": "a.jpg", "imageData": "="}
FORMATS: dict[str, tuple[str, Any, str]] = {
    "LabelMe": ("a.json", LABELME, "LabelMe's json of one picture is not read; convert it to COCO"),
    "Kaggle": (
        "train.csv",
        'image_id,width,height,bbox,source\nb6ab,1024,1024,"[834.0, 222.0, 56.0, 36.0]",usask\n',
        "a CSV of boxes is not read; convert it to a COCO json",
    ),
    "Kaggle's corners": (
        "train_labels.csv",
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,20,10,cat,1,2,3,4\n",
        "a CSV of boxes is not read",
    ),
    "Open Images": ("boxes.csv", "ImageID,LabelName,XMin,XMax\na,/m/01,0,1\n", "a CSV of boxes"),
    "a table without a head": ("boxes.csv", "a.jpg,1,2,3,4,cat\n", "a CSV of boxes"),
    "CVAT": ("annotations.xml", "<?xml version='1.0'?>\n<annotations></annotations>", "CVAT's xml"),
    "Label Studio": (
        "p.json",
        [{"data": {}, "annotations": []}],
        "Label Studio's json is not",
    ),
    "CreateML": ("x.json", [{"image": "a.jpg", "annotations": []}], "CreateML is not read; export"),
    "VIA": ("via.json", {"_via_img_metadata": {}}, "VIA's json is not read"),
    "Datumaro": ("default.json", {"items": [], "categories": {}}, "Datumaro's json is not read"),
    "Darknet": ("obj.data", "classes = 2\n", "obj.data is not read; export it as COCO, YOLO"),
    "TFRecord": ("train.tfrecord", "x", "TFRecord is not read"),
    "results": ("r.json", [{"image_id": 1, "bbox": [], "score": 1}], "a json of COCO results is"),
}


def written(place: Path, name: str, content: Any) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return place / name


@pytest.mark.parametrize(("name", "content", "message"), FORMATS.values(), ids=FORMATS)
def test_it_is_named_with_the_next_step(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    file = written(tmp_path / "deeper", name, content)
    for place in (tmp_path, file):
        with pytest.raises(InputError) as raised:
            find_layout(place)
        (line,) = raised.value.errors
        assert line.startswith(f"{file}: ") and message in line


@pytest.mark.parametrize("kind", ["LabelMe", "Kaggle", "CVAT", "Label Studio"])
def test_it_is_named_in_a_data_part_too(tmp_path: Path, kind: str) -> None:
    name, content, message = FORMATS[kind]
    data = Data(train=written(tmp_path, name, content))
    (finding,) = examine(data, tmp_path / "cache").errors
    assert finding.code == "file-unreadable"
    assert finding.places[0].detail.startswith(message[:20])


def test_an_archive_or_a_single_xml_has_another_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an archive is not read; unpack it"):
        find_layout(written(tmp_path, "export.zip", "PK"))
    with pytest.raises(InputError, match="one picture alone is not read; give the folder"):
        find_layout(written(tmp_path, "a.xml", "<annotation><object/></annotation>"))


def test_the_table_for_train_is_named_before_others(tmp_path: Path) -> None:
    written(tmp_path, "sample_submission.csv", "image_id,PredictionString\n")
    train = written(tmp_path, "train.csv", "image_id,bbox\n")
    with pytest.raises(InputError, match=f"^{train}: "):
        find_layout(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("people.csv", "who,when\n"),
        ("package.json", {"name": "x"}),
        ("broken.json", "{"),
        (".hidden.csv", "image_id,bbox\n"),
        ("text.json", "3"),
    ],
)
def test_a_file_of_something_else_is_not_taken_for_one(
    tmp_path: Path, name: str, content: Any
) -> None:
    written(tmp_path, name, content)
    with pytest.raises(InputError, match="no data set here"):
        find_layout(tmp_path)
