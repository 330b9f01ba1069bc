"""A COCO json of two pictures, checked as it is written."""

from pathlib import Path
from typing import Any

from trainer.config import Data
from trainer.data.checks.examine import Examined, examine


def content() -> dict[str, Any]:
    """A box of each of two classes on each of two pictures."""
    return {
        "images": [
            {"id": i, "file_name": name, "width": 40, "height": 30}
            for i, name in enumerate(("a.png", "b.png"))
        ],
        "annotations": [
            {
                "id": i,
                "image_id": i // 2,
                "category_id": i % 2,
                "bbox": [1 + i, 2, 10, 12],
                "area": 120,
                "iscrowd": 0,
                "ignore": 0,
                "segmentation": [],
            }
            for i in range(4)
        ],
        "categories": [{"id": i, "name": f"c{i}", "supercategory": "c"} for i in range(2)],
    }


def read_json(folder: Path, text: str, **fields: Any) -> Examined:
    file = folder / "train.json"
    file.write_text(text)
    return examine(Data(train=file, **fields), folder / "cache")


def all_codes(result: Examined) -> list[str]:
    return [finding.code for finding in result.findings]


def boxes_of(result: Examined) -> list[tuple[Any, ...]]:
    return [
        (p.boxes.tolist(), p.areas.tolist(), p.labels.tolist(), p.crowd.tolist())
        for p in result.splits["train"].pictures
    ]
