"""YOLO's data.yaml: its names, its splits, and where it may lead."""

from pathlib import Path

import pytest

from trainer.config import InputError
from trainer.data.checks.examine import examine
from trainer.data.formats.layouts import find_layout
from trainer.data.loading import load

from ..yolo_sets import YAML, check, codes, draw, make_yolo, write


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_yolo(tmp_path)


def test_the_yaml_itself_can_be_named_and_lists_work(place: Path) -> None:
    (place / "list.txt").write_text("./train/images/a.png\n")
    (place / "data.yaml").write_text(
        "path: .\ntrain: list.txt\nval: valid/images\nnames: {0: red, 1: blue}\n"
    )
    splits = load(find_layout(place / "data.yaml"), place.parent)
    assert [p.file.name for p in splits.train.pictures] == ["a.png"]


def test_names_may_be_numbered_in_quotes(place: Path) -> None:
    text = "train: train/images\nval: valid/images\nnames: {'0': red, '1': blue}\n"
    (place / "data.yaml").write_text(text)
    assert [(c.id, c.name) for c in check(place).categories] == [(0, "red"), (1, "blue")]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("train: nowhere\nval: valid/images\n" + YAML, "file-missing"),
        ("train: train/images\nval: valid/images\nnc: 3\n" + YAML, "file-unreadable"),
        ("train: train/images\nval: train/images\n" + YAML, "split-twice"),
        ("train: train/images\nval: valid/images\nnames: {a: b}\n", "file-unreadable"),
        ("train: train/images\nval: valid/images\nkpt_shape: [2, 3]\n" + YAML, "file-unreadable"),
    ],
)
def test_a_yaml_that_is_wrong_is_reported(place: Path, text: str, code: str) -> None:
    (place / "data.yaml").write_text(text)
    assert code in codes(place)


def test_a_path_with_backslashes_gives_a_hint(place: Path) -> None:
    (place / "data.yaml").write_text("train: train\\images\nval: no\\where\n" + YAML)
    first, second = (f for f in check(place).errors if f.code == "file-missing")
    assert first.places[0].detail == f"there is {place}/train/images: write / for \\"
    assert second.places[0].detail == ""


def test_a_broken_data_yaml_is_reported_where_its_folder_is_given(place: Path) -> None:
    (place / "data.yaml").write_text("names: [red\n")
    with pytest.raises(InputError, match=r"data\.yaml: while parsing"):
        find_layout(place)


def test_nothing_in_a_yaml_is_run(place: Path) -> None:
    (place / "data.yaml").write_text('names: !!python/object/apply:os.system ["touch ran"]\n')
    with pytest.raises(InputError):
        find_layout(place / "data.yaml")


def test_a_path_elsewhere_is_read_and_reported(place: Path) -> None:
    for path in (str(place), "../yolo"):
        text = f"path: {path}\ntrain: train/images\nval: valid/images\n" + YAML
        write(place.parent / "mine" / "data.yaml", text)
        examined = examine(find_layout(place.parent / "mine"), place.parent)
        assert not examined.errors and len(examined.splits["train"].pictures) == 1
        warned = [f for f in examined.findings if f.code == "yaml-leads-out"]
        assert [f.split for f in warned] == ["train", "val"]
        assert str(warned[0].places[0]).endswith("train/images")


def test_a_path_that_is_gone_is_reported(place: Path) -> None:
    write(place / "data.yaml", "path: ../gone\ntrain: train/images\n" + YAML)
    examined = check(place)
    assert not examined.errors
    assert "path-gone" in {f.code for f in examined.findings}


def test_a_folder_where_roboflow_is_not_meant_is_reported(place: Path) -> None:
    draw(place.parent / "train" / "images" / "other.png", 10)
    assert "place-ambiguous" in codes(place)
    (place / "train").rename(place / "elsewhere")
    write(place / "data.yaml", "train: ../train/images\n" + YAML)
    assert "place-ambiguous" not in codes(place)


@pytest.mark.parametrize("text", ["names: [hunter2", "names: *hunter2", "a: hunter2\na: hunter2"])
def test_no_word_of_a_foreign_yaml_is_reported(place: Path, text: str) -> None:
    write(place.parent / "foreign", text)
    (place / "data.yaml").unlink()
    (place / "data.yaml").symlink_to("../foreign")
    with pytest.raises(InputError) as raised:
        find_layout(place)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "names",
    [
        "[red, blue]",
        "{0: red, 1: blue}",
        "{1: blue, '0': red}",
        "[{0: red}, {1: blue}]",
        "[{1: blue, 0: red}]",
        "&n [red, blue]\nothers: *n",
    ],
)
def test_names_in_every_form(place: Path, names: str) -> None:
    write(place / "data.yaml", f"train: train/images\nnames: {names}\nnc: 2\n")
    assert [(c.id, c.name) for c in check(place).categories] == [(0, "red"), (1, "blue")]


@pytest.mark.parametrize("names", ["[{}, {}]", "{{0: {}, 1: {}}}", "[{{0: {}}}, {{1: {}}}]"])
@pytest.mark.parametrize(
    ("first", "second"), [("007", "010"), ("1e3", "0x1F"), ("true", "null"), ("2020-99-99", "~")]
)
def test_names_stay_as_written_whatever_yaml_takes_them_for(
    place: Path, names: str, first: str, second: str
) -> None:
    text = names.format(first, second)
    write(place / "data.yaml", f"train: train/images\nnames: {text}\nnc: 2\n")
    assert [(c.id, c.name) for c in check(place).categories] == [(0, first), (1, second)]


LAUGHS = "\n".join(
    ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)


@pytest.mark.parametrize(
    "text",
    [
        "names: [red, [blue]]",
        "names: [red, {1: blue}]",
        "names: [red, ]\nnc: [2]",
        "names: {0: red, 1: }",
        "names: &names [red, *names]",
        "names: {0: red, 1: {a: b}}",
        "names: {0: red, '0': blue}",
        "names: [{0: red}, {0: blue}]",
        "names: [{red: 0}]",
        "names: red",
        "names: {'" + "9" * 5000 + "': red}",
        "names: {" + "9" * 5000 + ": red}",
        "names: [red, blue]\nnc: " + "9" * 5000,
        "names: [red, blue]\nnc: two",
        "names: [red, blue]\npath: [a]",
        'names: [red, blue]\npath: "\\0"',
        'names: [red, blue]\ntrain: "/\\0/a"',
        "names: [red, blue]\ntrain: [[train/images]]",
        f"{LAUGHS}\nnames: *a11",
        f"{LAUGHS}\nnames: [*a11]",
        f"{LAUGHS}\nnames: [red, blue]\nnc: *a11",
        f"{LAUGHS}\nnames: [red, blue]\npath: *a11",
        "names: " + "[" * 200,
    ],
)
def test_what_a_yaml_cannot_mean_is_bad_input(place: Path, text: str) -> None:
    lines = text if "train:" in text else f"{text}\ntrain: train/images"
    write(place / "data.yaml", f"{lines}\n")
    try:
        errors = [(f.code, f.line) for f in check(place).errors]
    except InputError as error:
        errors = [("file-unreadable", line) for line in error.errors]
    assert [code for code, _ in errors] == ["file-unreadable"]
    assert all(len(line) < 500 for _, line in errors)
