"""Which checkpoints of a search are kept, and which are deleted."""

from pathlib import Path

from trainer.evaluation.review import REVIEW
from trainer.model.checkpoint import BEST, LAST, PREVIOUS

from ..ranking.contenders import may_win
from ..ranking.trial_order import sort_trials
from ..space.config import SearchConfig
from ..space.locations import PHASES, TRIALS, trial_folder
from ..study.lock import locked
from ..study.study import Study


class CheckpointRetention:
    """Deletes checkpoints of ended trials that are not needed, each time it is called.

    Last checkpoints go at once. Best checkpoints go, the worst first, while all of them together
    are larger than `search.disk_cap`; those that may become the winner's stay. Reviews stay: they
    are small, and MLflow may not have them yet.
    """

    def __init__(self, config: SearchConfig, study: Study) -> None:
        self._config = config
        self._study = study
        self._sizes: dict[int, int] = {}
        """Bytes of the best checkpoint of each trial that ended, by number."""

    def __call__(self) -> None:
        """Delete what is not needed now."""
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
        total = sum(size for number, size in self._sizes.items() if number in needed)
        for record in sort_trials(self._config, ended):
            if record.number in needed:
                continue
            total += self._sizes[record.number]
            if total > cap:
                (trial_folder(self._config.folder, record.number) / BEST).unlink(missing_ok=True)
                self._sizes[record.number] = 0


def clean(config: SearchConfig, study: Study) -> int:
    """Delete the shared phases, and checkpoints and reviews of trials that are not needed.

    The study and the winner's export stay. So do the best checkpoints of trials that may yet
    become the winner, and the last ones of trials that have not ended.

    Returns:
        The bytes that became free.

    Raises:
        SearchBusyError: The search runs.
    """
    needed = {
        file
        for number in may_win(config, study.records.values())
        for file in _best_and_review(trial_folder(config.folder, number))
    }
    for record in study.records.values():
        if record.end is None:
            folder = trial_folder(config.folder, record.number)
            needed |= {folder / LAST, folder / PREVIOUS}
    freed = 0
    with locked(config.folder):
        for name in (TRIALS, PHASES):
            for file in (config.folder / name).rglob("*"):
                if file.is_file() and file not in needed:
                    status = file.stat()
                    # a fork is a hard link: its bytes become free with the last link
                    freed += status.st_size if status.st_nlink == 1 else 0
                    file.unlink()
    return freed


def _best_and_review(trial: Path) -> list[Path]:
    """The best checkpoint of a trial, and the files of its review."""
    return [file for file in (trial / BEST, *(trial / REVIEW).glob("*")) if file.is_file()]
