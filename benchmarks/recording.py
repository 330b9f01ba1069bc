"""Record a real search in a terminal, and draw it as a moving picture: docs/search.svg.

    python benchmarks/recording.py FOLDER

Runs `unfreeze search` in FOLDER, on the embedded digits, in a pseudo-terminal. What it printed is
kept in FOLDER/recording.json: where that is there, the picture is drawn from it without a search.
The picture needs no script and no other file, and loops; a reader who asked for less motion
sees its last frame. The last line is its length and size as one JSON object.
"""

import argparse
import codecs
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeAlias
from xml.sax.saxutils import escape

import pyte

DOCS = Path(__file__).parents[1] / "docs"
COLUMNS = 76
"""As few as the table at the end needs: a phone shows the picture 390 pixels wide."""
ROWS = 100
"""More than a search prints, so that nothing is lost before it is drawn."""
COMMAND = "unfreeze search"
PROMPT = "$ "

LONGEST_PAUSE = 2.0
"""Seconds of the recording that a screen without a change lasts at most."""
PLAYED = 12.0
"""Seconds that the search takes in the picture."""
HELD = (3.0, 4.0)
"""Seconds that the table of trials stays, and then the winner."""
TYPED = 1.0
"""Seconds that the command takes at the start."""
FRAMES_PER_SECOND = 6

CELL, LINE = 8.4, 19
"""Width of a letter and height of a line, in the picture's units."""
MARGIN, BAR, BOTTOM = 16, 34, 16
SHOWN = 21
"""Rows that are drawn at a time."""
STYLE = (
    "text{font:14px ui-monospace,SFMono-Regular,Menlo,'DejaVu Sans Mono',monospace;fill:#e2e8f0;"
    "white-space:pre}.bold{font-weight:700;fill:#fff}.prompt{fill:#4ade80}"
    ".bar{font-size:12px;fill:#94a3b8;text-anchor:middle}"
)


Row: TypeAlias = tuple[tuple[str, str], ...]
"""Pieces of text, each with the name of its style."""


@dataclass(frozen=True)
class Printed:
    """Something that the search wrote to the terminal."""

    at: float
    """Seconds since the start."""
    text: str


@dataclass(frozen=True)
class Frame:
    """What the terminal shows for a while."""

    seconds: float
    rows: tuple[Row, ...]


def main() -> None:
    """Record a search where none is recorded yet, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the search runs")
    folder = parser.parse_args().folder
    file = folder / "recording.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        printed = record(folder)
        file.write_text(json.dumps([[p.at, p.text] for p in printed]))
    printed = [Printed(at, text) for at, text in json.loads(file.read_text())]
    picture = DOCS / "search.svg"
    picture.write_text(draw(film(printed), printed[-1].at), encoding="utf-8")
    print(json.dumps({"seconds": round(printed[-1].at), "bytes": picture.stat().st_size}))


def record(folder: Path) -> list[Printed]:
    """Run the command in a folder, and keep what it writes to a terminal of COLUMNS by ROWS."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    programs = Path(sys.executable).parent
    environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
    environment |= {"TERM": "xterm-256color", "PATH": f"{programs}:{os.environ['PATH']}"}
    search = subprocess.Popen(
        COMMAND.split(), cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    started = time.monotonic()
    printed: list[Printed] = []
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # a terminal's way to say that nobody writes to it any more
            break
        if not data:
            break
        text = decoder.decode(data).replace(str(folder.resolve()), "~")
        printed.append(Printed(round(time.monotonic() - started, 3), text))
    os.close(ours)
    if search.wait():
        raise SystemExit(f"{COMMAND} ended with {search.returncode}")
    return printed


# -- from what was printed to frames --------------------------------------------------------------


def film(printed: list[Printed]) -> list[Frame]:
    """The command being typed, the search within PLAYED seconds, and its result."""
    typed = [COMMAND[:n] for n in range(len(COMMAND) + 1)]
    frames = [Frame(TYPED / len(typed), (((PROMPT, "prompt"), (text, "")),)) for text in typed]
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    stream.feed(f"{PROMPT}{COMMAND}\r\n")
    times = _without_pauses([p.at for p in printed])
    shown, step = 0, times[-1] / (PLAYED * FRAMES_PER_SECOND)
    for k in range(1, round(PLAYED * FRAMES_PER_SECOND) + 1):
        while shown < len(printed) and times[shown] <= k * step + 1e-6:
            stream.feed(printed[shown].text)
            shown += 1
        frames.append(Frame(1 / FRAMES_PER_SECOND, _rows(screen)[-SHOWN:]))
    same = [list(group) for _, group in groupby(frames, lambda frame: frame.rows)]
    film = [Frame(sum(frame.seconds for frame in group), group[0].rows) for group in same]
    return [*film[:-1], *_result(_rows(screen))]


def _result(rows: tuple[Row, ...]) -> list[Frame]:
    """What a reader scrolls to at the end: the rows before the winner's, then these."""
    (winner,) = (y for y, row in enumerate(rows) if row and row[0][0].startswith("Winner:"))
    table = rows[max(0, winner - SHOWN) : winner]
    return [Frame(HELD[0], table), Frame(HELD[1], rows[winner : winner + SHOWN])]


def _without_pauses(times: list[float]) -> list[float]:
    """The times, with each pause no longer than LONGEST_PAUSE."""
    now, shorter = 0.0, []
    for before, at in zip([0.0, *times], times, strict=False):
        now += min(at - before, LONGEST_PAUSE)
        shorter.append(now)
    return shorter


def _rows(screen: pyte.Screen) -> tuple[Row, ...]:
    """The rows of a terminal as pieces of text of one style, without what is empty at the end."""
    rows = []
    for y in range(screen.lines):
        cells = [screen.buffer[y][x] for x in range(screen.columns)]
        pieces = [
            ("".join(cell.data for cell in group), "bold" if bold else "")
            for bold, group in groupby(cells, lambda cell: cell.bold)
        ]
        if y == 0 and pieces[0][0].startswith(PROMPT):
            command = pieces[0][0].removeprefix(PROMPT).rstrip()
            pieces = [(PROMPT, "prompt"), (command, "")]
        while pieces and not pieces[-1][0].strip():
            pieces.pop()
        if pieces:
            pieces[-1] = (pieces[-1][0].rstrip(), pieces[-1][1])
        rows.append(tuple(pieces))
    while rows and not rows[-1]:
        rows.pop()
    return tuple(rows)


# -- from frames to a picture ---------------------------------------------------------------------


def draw(frames: list[Frame], seconds: float) -> str:
    """An SVG of all frames below each other; an animation shows one after the other.

    Args:
        frames: What the terminal shows, in order.
        seconds: How long the search took.
    """
    names: dict[Row, str] = {}
    for frame in frames:
        for row in frame.rows:
            names.setdefault(row, f"r{len(names)}")
    rows = "".join(f'<text id="{name}">{_spans(row)}</text>' for row, name in names.items() if row)
    height = SHOWN * LINE + BOTTOM
    strip = ""
    for number, frame in enumerate(frames):
        top = number * height
        for y, row in enumerate(frame.rows, start=1):
            if row:
                strip += f'<use href="#{names[row]}" y="{top + y * LINE}"/>'
    total = sum(frame.seconds for frame in frames)
    steps, now = "", 0.0
    for number, frame in enumerate(frames):
        steps += f"{100 * now / total:.2f}%{{transform:translateY({-number * height}px)}}"
        now += frame.seconds
    style = STYLE + f"#film{{transform:translateY({-(len(frames) - 1) * height}px)}}"
    style += f"@keyframes film{{{steps}}}@media (prefers-reduced-motion:no-preference)"
    style += f"{{#film{{animation:film {total:.2f}s step-end infinite}}}}"
    wide, high = COLUMNS * CELL + 2 * MARGIN, height + BAR
    title = "sped up"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img">'
        f"<title>{COMMAND}: {title}</title><style>{style}</style><defs>{rows}</defs>"
        f'<rect width="{wide}" height="{high}" rx="8" fill="#0f172a"/>'
        f'<text class="bar" x="{wide / 2}" y="{BAR - 12}">{title}</text>'
        f'<svg x="{MARGIN}" y="{BAR}" width="{wide - MARGIN}" height="{height}" overflow="hidden">'
        f'<g id="film">{strip}</g></svg></svg>\n'
    )


def _spans(row: Row) -> str:
    return "".join(
        f'<tspan class="{style}">{escape(text)}</tspan>' if style else escape(text)
        for text, style in row
    )


if __name__ == "__main__":
    main()
