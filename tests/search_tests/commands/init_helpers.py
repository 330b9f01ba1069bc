"""What the tests of `unfreeze init` share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from search.commands.init import write_search
from search.space.config import SearchConfig
from search.space.config_file import read_config
from search.space.validation import checked_config
from trainer.config import Data


def init_config(
    place: Path, out: Path = Path("search.yaml"), images: Sequence[str] = ()
) -> tuple[SearchConfig, list[str]]:
    """The config that init writes, as a search reads it, and the lines that it prints."""
    said: list[str] = []
    write_search(place, out, said.append, images=images)
    return checked_config(read_config(out, {}), out.parent), said


def resize_pictures(place: Path, size: tuple[int, int], side: int, count: int = 1) -> None:
    """Give the pictures of train this size, each with `count` square objects of this side."""
    content: dict[str, Any] = json.loads((place / "train.json").read_text())
    for image in content["images"]:
        image["width"], image["height"] = size
        picture = Image.new("L", size)
        picture.putpixel((image["id"] % 50, 0), 255)
        picture.save(place / "images" / image["file_name"])
    content["annotations"] = [
        {
            "id": 1000 * image["id"] + i,
            "image_id": image["id"],
            "category_id": (3, 7)[image["id"] % 2],
            "bbox": [(side + 1) * (i % 20), (side + 1) * (i // 20), side, side],
        }
        for image in content["images"]
        for i in range(count)
    ]
    (place / "train.json").write_text(json.dumps(content))


def data_of(config: SearchConfig) -> Data:
    """The data set of a config that names files."""
    assert isinstance(config.data, Data)
    return config.data
