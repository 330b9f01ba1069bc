"""What MLflow shows of a search and its trials: names, tags, rows, data sets."""

import json
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag

from trainer.epoch_report import EpochReport

DIGEST = 12
"""Characters of a data set's digest that MLflow shows; it takes 36."""


@dataclass(frozen=True, kw_only=True)
class DataInput:
    """One split, as MLflow shows data sets."""

    split: str
    name: str
    digest: str
    source: str
    pictures: int
    boxes: int

    def entity(self) -> DatasetInput:
        """The split as MLflow's client takes it."""
        profile = {"num_rows": self.pictures, "boxes": self.boxes}
        dataset = Dataset(
            name=self.name,
            digest=self.digest[:DIGEST],
            source_type="local",
            source=json.dumps({"uri": self.source}),
            profile=json.dumps(profile),
        )
        return DatasetInput(dataset, [InputTag("mlflow.data.context", self.split)])


@dataclass(frozen=True, kw_only=True)
class Description:
    """What MLflow shows of the search itself."""

    status: str
    """RUNNING, FINISHED, FAILED or KILLED."""
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    texts: dict[str, str]
    """Artifacts by file name."""
    files: tuple[Path, ...] = ()
    """Further artifacts."""
    inputs: tuple[DataInput, ...] = ()


def flat_metrics(report: EpochReport) -> dict[str, float]:
    """The numbers of a report; MLflow groups them by the part of a name before the slash."""
    rows = {
        "val/map": report.map,
        "val/map_50": report.map_50,
        "val/map_75": report.map_75,
        "best_map": report.best_map,  # MLflow sorts runs by a metric's last value
        "phase/depth": report.depth,
        "phase/unfreeze_epoch": report.unfreeze_epoch,
        "time/seconds": report.seconds,
        "time/images_per_second": report.images_per_second,
    }
    rows |= {f"system/{name}": value for name, value in report.system.items()}
    rows |= {f"train/{name}": value for name, value in report.losses.items()}
    for name, group in report.groups.items():
        part, _, no_decay = name.partition(" ")
        rows[f"lr/{part}"] = group.lr
        rows[f"trainable/{part}"] = rows.get(f"trainable/{part}", 0) + group.trainable
        if not no_decay:
            rows[f"weight_decay/{part}"] = group.weight_decay
    return {name: float(value) for name, value in rows.items()}
