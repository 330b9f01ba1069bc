"""The data of a trial, opened once: canvases, frozen features, ground truth."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..config import TrainConfig
from ..data.canvas_store import canvases_folder, open_canvases
from ..data.dataset import Splits
from ..data.shared_arrays import Bytes
from ..evaluation.coco_metrics import GroundTruth
from ..model.detectors import Detector
from ..phases import Phase
from .feature_files import features_folder
from .frozen_features import CachedFeatures, cache_frozen_features


@dataclass(frozen=True)
class TrialData:
    """Everything that a trial reads in an epoch."""

    config: TrainConfig
    """The config, with its precision resolved."""
    splits: Splits
    train_canvases: Bytes
    """(n, S, S, 3) RGB."""
    val_canvases: Bytes
    """(n, S, S, 3) RGB."""
    truth: GroundTruth
    """Ground truth of val."""
    num_workers: int
    """Threads that make batches ahead; 0 makes each batch when it is used."""
    features: dict[int, dict[str, CachedFeatures]] = field(default_factory=dict)
    """Frozen features opened so far, by depth and name of the split."""

    @classmethod
    def open(
        cls, config: TrainConfig, splits: Splits, num_workers: int, on_step: Callable[[], None]
    ) -> "TrialData":
        """Open the canvases of a data set; `on_step` is called while missing ones are made."""
        folder = canvases_folder()
        size = config.model.image_size
        return cls(
            config,
            splits,
            open_canvases(splits.train, size, folder, on_step),
            open_canvases(splits.val, size, folder, on_step),
            GroundTruth(splits.val),
            num_workers,
        )

    def frozen_features(
        self, detector: Detector, phase: Phase, on_step: Callable[[], None]
    ) -> dict[str, CachedFeatures]:
        """Frozen features of a phase by split, see `cache_frozen_features`; empty if not cached."""
        if not phase.caches_features:
            return {}
        if phase.depth not in self.features:
            self.features[phase.depth] = cache_frozen_features(
                detector,
                phase.depth,
                self.config,
                [
                    (self.splits.train, self.train_canvases),
                    (self.splits.val, self.val_canvases),
                ],
                features_folder(),
                on_step,
            )
        return self.features[phase.depth]
