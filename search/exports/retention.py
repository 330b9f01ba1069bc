"""Which checkpoints of a search are kept, and which are deleted."""

from pathlib import Path

from trainer.evaluation.review import REVIEW
from trainer.model.checkpoint import BEST, LAST, PREVIOUS

from ..ranking.results import may_win, order
from ..space.config import SearchConfig, trial_folder
from ..study.lock import locked
from ..study.study import Study


class Tidying:
    """Deletes, whenever called, what no one needs any more: ended trials' last checkpoints, and of
    their best ones the worst, as long as all together are over the cap; none that may become the
    winner's.

    Reviews are small, and MLflow may not have them yet: they stay.
    """

    def __init__(self, config: SearchConfig, study: Study) -> None:
        self._config = config
        self._study = study
        self._sizes: dict[int, int] = {}
        """Bytes of the best checkpoint of each trial that ended, by number."""

    def __call__(self) -> None:
        ended = self._study.ended()
        for record in ended:
            if record.number not in self._sizes:
                folder = trial_folder(self._config.folder, record.number)
                for name in (LAST, PREVIOUS):
                    (folder / name).unlink(missing_ok=True)
                best = folder / BEST
                self._sizes[record.number] = best.stat().st_size if best.is_file() else 0
        cap = self._config.search.disk_cap
        if sum(self._sizes.values()) <= cap:
            return
        needed = may_win(self._config, self._study.records.values())
        total = 0
        for record in order(self._config, ended):
            total += self._sizes[record.number]
            if record.number not in needed and total > cap:
                (trial_folder(self._config.folder, record.number) / BEST).unlink(missing_ok=True)
                self._sizes[record.number] = 0


def _kept(trial: Path) -> list[Path]:
    """What an ended trial keeps: its best checkpoint, and its review."""
    return [f for f in (trial / BEST, *(trial / REVIEW).glob("*")) if f.is_file()]


def clean(config: SearchConfig, study: Study) -> int:
    """Delete the shared phases and the trials' checkpoints and reviews; the record, the winner, and
    those of trials that have no end or may yet become another winner stay.

    Returns the bytes that became free. Raises Busy while the search runs.
    """
    needed = {
        file
        for number in may_win(config, study.records.values())
        for file in _kept(trial_folder(config.folder, number))
    }
    for record in study.records.values():
        if record.end is None:  # to be continued
            folder = trial_folder(config.folder, record.number)
            needed |= {folder / LAST, folder / PREVIOUS}
    freed = 0
    with locked(config.folder):
        for name in ("trials", "phases"):
            for file in (config.folder / name).rglob("*"):
                if file.is_file() and file not in needed:
                    left = file.stat()
                    freed += left.st_size if left.st_nlink == 1 else 0  # forks share bytes
                    file.unlink()
    return freed
