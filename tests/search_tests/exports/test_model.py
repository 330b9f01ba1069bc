"""A trained model in Python: what it detects, its figures, its files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.exports import model as python_model
from search.exports.evaluate import evaluate_model
from search.exports.model import Model, Prediction
from search.exports.predict import predict_pictures
from trainer.config import Data, InputError
from trainer.data.dataset import Category
from trainer.evaluation.drawing import Box

from ..conftest import Trained, errors_of


@pytest.fixture
def pictures(tiny_data: Data) -> list[Path]:
    return sorted((tiny_data.train.parent / "images").glob("val-*.png"))


def test_a_file_an_image_and_an_array_give_the_same_boxes(
    model: Path, pictures: list[Path]
) -> None:
    of_file = Model(model).predict(str(pictures[0]), threshold=0.0)
    image = Image.open(pictures[0])
    assert len(of_file) > 0 and of_file.file == pictures[0]
    for other in (image, np.asarray(image)):
        predicted = Model(model).predict(other, threshold=0.0)
        np.testing.assert_array_equal(predicted.xyxy, of_file.xyxy)
        assert predicted.file is None


def test_boxes_are_arrays_best_first_and_equal_those_of_the_command(
    model: Path, pictures: list[Path]
) -> None:
    predicted = Model(model).predict(pictures[0], threshold=0.0)
    count = len(predicted)
    assert predicted.xyxy.shape == (count, 4) and predicted.xyxy.dtype == np.float32
    assert predicted.confidence.shape == predicted.class_id.shape == (count,)
    assert (np.diff(predicted.confidence) <= 0).all()
    assert [Model(model).classes[i] for i in predicted.class_id] == predicted.class_names
    done = predict_pictures(str(model), [pictures[0]], Path(), Path("out"), 0.0)
    assert done.boxes == count


def test_classes_of_the_same_name_stay_apart() -> None:
    categories = (Category(3, "cell"), Category(7, "cell"))
    boxes = tuple(Box(category, 0.5, (0.0, 0.0, 1.0, 1.0)) for category in reversed(categories))
    predicted = Prediction(Image.new("RGB", (4, 4)), boxes, categories)
    assert predicted.class_id.tolist() == [1, 0]


def test_without_boxes_the_arrays_are_empty(model: Path, pictures: list[Path]) -> None:
    predicted = Model(model).predict(pictures[0], threshold=1.0)
    assert len(predicted) == 0
    assert predicted.xyxy.shape == (0, 4) and predicted.class_id.shape == (0,)


def test_a_list_gives_a_list_and_its_folders_stand_for_their_pictures(
    model: Path, pictures: list[Path]
) -> None:
    black = np.zeros((40, 60, 3), dtype=np.uint8)
    predictions = Model(model).predict([pictures[0], black, str(pictures[0].parent / "val-*.png")])
    assert [p.file for p in predictions] == [pictures[0], None, *pictures]
    assert predictions[1].image.size == (60, 40)


def test_a_folder_alone_is_refused_with_the_way_to_name_its_pictures(
    model: Path, pictures: list[Path]
) -> None:
    (error,) = errors_of(Model(model).predict, pictures[0].parent)
    assert error.endswith(f"give a list: [{pictures[0].parent}]")


@pytest.mark.parametrize(
    "array", [np.zeros((40, 60)), np.zeros((40, 60, 3)), np.zeros((3, 40, 60), dtype=np.uint8)]
)
def test_an_array_that_is_no_picture_is_refused_with_the_legal_form(
    model: Path, array: np.ndarray[Any, Any]
) -> None:
    (error,) = errors_of(Model(model).predict, array)
    assert str(array.shape) in error and "uint8" in error


@pytest.mark.parametrize("picture", ["gone.png", "broken.png"])
def test_a_picture_that_cannot_be_read_is_named(model: Path, picture: str) -> None:
    Path("broken.png").write_bytes(b"no picture")
    for given in (picture, [picture]):
        (error,) = errors_of(Model(model).predict, given)
        assert error.startswith(f"{picture}: ")


def test_the_drawn_picture_is_shown_in_a_viewer_and_saved(
    model: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Image.Image] = []
    monkeypatch.setattr(Image.Image, "show", lambda image: shown.append(image))
    predicted = Model(model).predict(pictures[0], threshold=0.0)
    predicted.show()
    assert [image.size for image in shown] == [predicted.draw().size]
    assert np.asarray(shown[0]).std() > 0
    predicted.save("drawn.png")
    assert np.array_equal(np.asarray(Image.open("drawn.png")), np.asarray(shown[0]))


def test_in_a_notebook_the_picture_is_shown_below_the_cell(
    model: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    displayed: list[Any] = []
    monkeypatch.setattr("IPython.display.display", displayed.append)
    monkeypatch.setattr(python_model, "Console", lambda: type("Notebook", (), {"is_jupyter": True}))
    Model(model).predict(pictures[0]).show()
    (image,) = displayed
    assert isinstance(image, Image.Image)


def test_it_knows_its_classes_its_thresholds_and_its_figures(model: Path) -> None:
    opened = Model(model)
    assert opened.classes == ("red", "blue")
    assert set(opened.thresholds) == {"red", "blue"}
    assert 0 <= opened.metrics["val"]["figures"]["map"] <= 1
    assert opened.folder == model and "red, blue" in repr(opened)


def test_it_is_evaluated_as_by_the_command(model: Path, trained: Trained) -> None:
    data = trained.config.folder / "search.yaml"
    figures = Model(model).evaluate(data)["figures"]
    assert figures == evaluate_model(str(model), data, "val", Path(), None)["figures"]


def test_it_is_exported_to_a_folder_of_its_name(model: Path) -> None:
    opened = Model(model)
    assert opened.export() == Path("model-safetensors")
    copied = Model(Path("model-safetensors"))
    black = np.zeros((40, 60, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        copied.predict(black, threshold=0.0).xyxy, opened.predict(black, threshold=0.0).xyxy
    )
    with pytest.raises(InputError, match="exists already"):
        opened.export()
    assert opened.export("elsewhere") == Path("elsewhere")
