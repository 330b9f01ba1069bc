"""A detector that knows the answers, for tests."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.data.batches import target
from trainer.data.dataset import Split

SIZE = 64


class Oracle(nn.Module):
    """A detector that finds the given boxes, on the canvas, picture after picture."""

    def __init__(self, answers: list[dict[str, Tensor]]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))
        self.answers = answers

    def forward(self, pictures: Tensor, frozen: None = None) -> list[dict[str, Tensor]]:
        results, self.answers = self.answers[: len(pictures)], self.answers[len(pictures) :]
        return [{**a, "scores": torch.full((len(a["labels"]),), 0.9)} for a in results]


def perfect(split: Split) -> Any:
    return Oracle([target(picture, SIZE) for picture in split.pictures])


def canvases(count: int) -> NDArray[np.uint8]:
    return np.zeros((count, SIZE, SIZE, 3), dtype=np.uint8)
