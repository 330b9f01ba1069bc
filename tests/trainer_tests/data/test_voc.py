"""Pascal VOC in its layouts, and the same boxes as COCO."""

from pathlib import Path

import pytest
from PIL import Image

from trainer.config import BadInput, Data
from trainer.data.dataset import Split, Splits
from trainer.data.formats import find, load

BCCD = Path(__file__).parents[4] / "shared" / "data" / "bccd"
BOX = "<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>"


def write(file: Path, *things: tuple[str, int, int, int, int], extra: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{name}</name>{extra}{BOX.format(*box)}</object>" for name, *box in things
    )
    size = "<size><width>40</width><height>30</height></size>"
    stale = "<filename>somewhere/else.png</filename>"
    file.write_text(f"<annotation>{stale}{size}{objects}</annotation>")


def draw(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    level = sum(map(ord, str(file.name)))
    Image.new("RGB", (40, 30), (level % 256, level // 256, len(file.name))).save(file)


def boxes(split: Split) -> dict[str, list[tuple[str, list[float]]]]:
    names = [category.name for category in split.categories]
    return {
        p.file.name: [(names[n - 1], b) for n, b in zip(p.labels, p.boxes.tolist(), strict=True)]
        for p in split.pictures
    }


def read(place: Path, cache: Path) -> Splits:
    return load(find(place), cache)


@pytest.mark.parametrize("pictures", ["JPEGImages", "images", "../images"])
def test_image_sets_with_annotations_and_pictures(tmp_path: Path, pictures: str) -> None:
    place = tmp_path / "voc"
    sets = place / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    for split, stem in (("train", "a"), ("val", "b")):
        write(place / "Annotations" / f"{stem}.xml", ("cat", 1, 2, 11, 22), ("ant", 3, 4, 9, 9))
        draw(place / pictures / f"{stem}.png")
        (sets / f"{split}.txt").write_text(f"{stem}\n")
    splits = read(place, tmp_path)
    assert [(c.id, c.name) for c in splits.categories] == [(1, "ant"), (2, "cat")]
    assert boxes(splits.train) == {"a.png": [("cat", [1, 2, 10, 20]), ("ant", [3, 4, 6, 5])]}
    assert list(boxes(splits.val)) == ["b.png"]


def test_a_list_that_is_no_text_is_told(tmp_path: Path) -> None:
    sets = tmp_path / "voc" / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_bytes("é\n".encode("latin-1"))
    write(tmp_path / "voc" / "Annotations" / "a.xml", ("cat", 1, 2, 11, 22))
    with pytest.raises(BadInput, match="no label file"):
        read(tmp_path / "voc", tmp_path)


def test_xml_files_beside_their_pictures(tmp_path: Path) -> None:
    for folder, stem in (("train", "a"), ("valid", "b")):
        write(tmp_path / folder / f"{stem}.xml", ("cat", 1, 2, 11, 22))
        draw(tmp_path / folder / f"{stem}.jpg")
    splits = read(tmp_path, tmp_path)
    assert (list(boxes(splits.train)), list(boxes(splits.val))) == (["a.jpg"], ["b.jpg"])
    for stem in ("c", "d"):
        write(tmp_path / "flat" / f"{stem}.xml", ("cat", 1, 2, 11, 22))
        draw(tmp_path / "flat" / f"{stem}.png")
    assert read(tmp_path / "flat", tmp_path).made


def test_what_is_wrong_is_told_with_the_file(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a.xml", ("cat", 5, 5, 5, 9))
    draw(tmp_path / "train" / "a.png")
    with pytest.raises(BadInput, match=r"box-empty: .*annotation a\.xml object 1 of image 1"):
        load(Data(train=tmp_path / "train"), tmp_path)
    (tmp_path / "train" / "b.xml").write_text("<annotation>")
    with pytest.raises(BadInput, match=r"file-unreadable: .*b\.xml"):
        load(Data(train=tmp_path / "train"), tmp_path)


@pytest.mark.skipif(not BCCD.is_dir(), reason="needs the BCCD data set")
def test_bccd_as_voc_is_bccd_as_coco_but_for_two_boxes_of_no_size(tmp_path: Path) -> None:
    coco = read(BCCD, tmp_path)
    with pytest.raises(BadInput) as raised:
        read(BCCD / "voc", tmp_path)
    assert [line.split(": ")[1] for line in raised.value.errors] == ["box-empty", "box-empty"]
    data = find(BCCD / "voc").model_copy(update={"allow": ["box-empty"]})
    voc = load(data, tmp_path)
    assert voc.categories == coco.categories
    for one, other in ((voc.train, coco.train), (voc.val, coco.val), (voc.test, coco.test)):
        assert one and other and boxes(one) == boxes(other)
