"""`unfreeze ui`: what it refuses before it serves anything."""

import pytest

from search.ui import serve
from trainer.config import BadInput


def test_without_a_store_there_is_nothing_to_show() -> None:
    with pytest.raises(BadInput, match=r"no MLflow store .*/mlflow\.db; run it where"):
        serve(None, 5000)


def test_a_store_behind_a_server_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve("http://127.0.0.1:1", 5000) == 0
    assert "http://127.0.0.1:1" in capsys.readouterr().out
