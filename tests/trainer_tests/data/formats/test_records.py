"""Records keep apart what a file lacks and what it leaves empty."""

from pathlib import Path

import msgspec
from msgspec import UNSET

from trainer.data.formats.records import BoxRecord, CategoryRecord, ImageRecord, Records


def test_a_field_that_a_file_lacks_is_unset() -> None:
    image = msgspec.json.decode(b'{"file_name": null, "licence": 3}', type=ImageRecord)
    assert (image.id, image.file_name, image.width) == (UNSET, None, None)
    box = msgspec.json.decode(b"{}", type=BoxRecord)
    assert (box.image_id, box.category_id, box.bbox) == (UNSET,) * 3
    assert (box.iscrowd, box.ignore, box.area) == (0, 0, None)
    assert msgspec.json.decode(b"{}", type=CategoryRecord).name is UNSET


def test_records_of_two_splits_are_separate() -> None:
    one, other = (Records(name, Path("a.json"), "COCO", []) for name in ("train", "val"))
    one.images.append(ImageRecord(1))
    one.difficult.append(1)
    assert (other.images, other.difficult) == ([], [])
