"""Draws how a trial trains from the code that plans it: which stages train, and how fast.

`make docs` runs it with the pages. A test compares the pictures with what this gives.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import torch
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import nn

from trainer.config import Train
from trainer.model.freezing import Stage, set_depth
from trainer.phases import Phase, plan
from trainer.training.lr_schedule import set_step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOCS = Path(__file__).parent
STAGES = 5
"""Stages of the backbone in the pictures."""
STEPS = 20
"""Steps of an epoch in the pictures."""
UNFREEZE: dict[str, Any] = {"depth": 3, "epochs": 8, "open_epochs": 3, "stage_lr_decay": 0.5}
SCHEDULES = ("at_once", "gradual")
GROUPS = ("head", *(f"stage{i}" for i in range(STAGES, 0, -1)))
"""What a learning rate is for, the head (and neck) first and then the stages from the top."""
NAMES = ["neck, head", *(f"stage {i}" for i in range(STAGES, 0, -1))]
COLOURS = ("#ea580c", "#1e3a8a", "#2563eb", "#60a5fa", "#93c5fd", "#bfdbfe")
FROZEN = "#e2e8f0"
STYLE: Any = {
    "font.size": 13,
    "svg.fonttype": "path",  # the same letters for every reader
    "svg.hashsalt": "unfreeze",  # the same bytes each time
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def stages() -> str:
    """An SVG of which parts of the detector train in each epoch, a panel a schedule."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(height=6.6)
        for panel, schedule in zip(panels, SCHEDULES, strict=True):
            for phase in _phases(schedule):
                training = training_groups(phase.depth)
                for row, group in enumerate(GROUPS):
                    colour = COLOURS[row] if group in training else FROZEN
                    panel.barh(row, phase.epochs, 0.92, phase.first_epoch + 0.5, color=colour)
                for epoch in range(phase.first_epoch, phase.end):
                    panel.axvline(epoch + 0.5, color="white", linewidth=2)
            panel.set_yticks(range(len(GROUPS)), NAMES)
            panel.set_ylim(-0.5, len(GROUPS) - 0.5)
            panel.tick_params(left=False, bottom=False)
            panel.spines[:].set_visible(False)
            panel.invert_yaxis()
            _name_phases(panel, schedule)
        panels[-1].set_xlabel("epoch")
        figure.legend(
            handles=[Patch(color=COLOURS[2], label="trains"), Patch(color=FROZEN, label="frozen")],
            loc="outside lower center",
            ncols=2,
            frameon=False,
        )
        return _svg(figure)


def learning_rates() -> str:
    """An SVG of the learning rate of each part at every step, a panel a schedule."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(height=6.6)
        for panel, schedule in zip(panels, SCHEDULES, strict=True):
            rates = rates_by_group(_train(schedule))
            for row, group in enumerate(GROUPS):
                if any(rates[group]):
                    epochs = [0.5 + step / STEPS for step in range(len(rates[group]))]
                    shown = [rate or float("nan") for rate in rates[group]]
                    panel.plot(epochs, shown, color=COLOURS[row], linewidth=2, label=NAMES[row])
            panel.set_ylabel("learning rate")
            panel.set_yscale("log")
            _name_phases(panel, schedule)
        panels[-1].set_xlabel("epoch")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
        return _svg(figure)


def rates_by_group(train: Train) -> dict[str, list[float]]:
    """The learning rate of each part at every step of a trial; 0 where it is frozen."""
    rates: dict[str, list[float]] = {group: [] for group in GROUPS}
    detector = _Detector()
    optimizer = torch.optim.SGD(
        [{"name": group, "params": [parameter]} for group, parameter in detector.groups().items()],
        lr=0.0,
    )
    for phase in plan(train, STAGES):
        detector.set_depth(phase.depth)
        for step in range(phase.epochs * STEPS):
            set_step(optimizer, phase, train.warmup_epochs, step, STEPS)
            for settings in optimizer.param_groups:
                rates[settings["name"]].append(settings["lr"])
    return rates


def training_groups(depth: int) -> set[str]:
    """The parts of a detector that train at a depth."""
    detector = _Detector()
    detector.set_depth(depth)
    return {name for name, parameter in detector.groups().items() if parameter.requires_grad}


class _Detector(nn.Module):
    """One weight for each part of a detector: enough to freeze and to give learning rates to."""

    def __init__(self) -> None:
        super().__init__()
        layers = {group: nn.Linear(1, 1, bias=False) for group in GROUPS}
        self.head = layers.pop("head")
        self.backbone = nn.ModuleDict(layers)

    def set_depth(self, depth: int) -> None:
        names = reversed(GROUPS[1:])  # from the bottom
        set_depth(self, [Stage([name], [f"{name}.weight"]) for name in names], depth)

    def groups(self) -> dict[str, nn.Parameter]:
        return {
            name.removeprefix("backbone.").removesuffix(".weight"): parameter
            for name, parameter in self.named_parameters()
        }


def _train(schedule: str) -> Train:
    return Train.model_validate({"unfreeze": {**UNFREEZE, "schedule": schedule}})


def _phases(schedule: str) -> list[Phase]:
    return plan(_train(schedule), STAGES)


def _panels(height: float) -> tuple[Figure, "list[Axes]"]:
    """A panel a schedule, below each other: a phone shows them as wide as its screen."""
    figure = Figure(figsize=(6.4, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, list(figure.subplots(len(SCHEDULES), 1, sharex=True))


def _name_phases(panel: "Axes", schedule: str) -> None:
    """Write the schedule above a panel, and mark where its phases begin."""
    phases = _phases(schedule)
    panel.set_title(f"schedule: {schedule}", loc="left", fontweight="bold", pad=28)
    panel.set_xlim(0.5, phases[-1].end + 0.5)
    panel.set_xticks(range(1, phases[-1].end + 1))
    for phase in phases:
        middle = phase.first_epoch + phase.epochs / 2 + 0.5
        name = "head phase" if phase.name == "head" else f"depth {phase.depth}"
        short = name if phase.epochs > 1 else str(phase.depth)
        top = (middle, 1.03)
        panel.text(*top, short, transform=panel.get_xaxis_transform(), ha="center", fontsize=12)
        if phase.first_epoch:
            panel.axvline(phase.first_epoch + 0.5, color="#475569", linewidth=1, linestyle=":")


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    lines = text.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


PICTURES = {
    "how-a-trial-trains-stages": stages,
    "how-a-trial-trains-rates": learning_rates,
}


def main() -> None:
    """Draw every picture."""
    for name, picture in PICTURES.items():
        (DOCS / f"{name}.svg").write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
