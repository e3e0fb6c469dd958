"""Draw the pictures of the documentation into `docs/images`: tiles and halos, and the speed that README shows.

python scripts/draw.py      a test holds the committed files to what this draws
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"

CELL = 26
COLOURS = ("#c5cae9", "#ffe0b2", "#c8e6c9")
STYLE = (
    "text{font:13px sans-serif;fill:#222} .small{font-size:11px} .mono{font-family:monospace} line,path{stroke:#555}"
)

HATCHING = """\
<defs><pattern id="halo" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<line x1="0" y1="0" x2="0" y2="6" stroke-width="2" style="stroke:#c62828"/></pattern></defs>"""


class Drawing:
    """An SVG that grows by rectangles, lines and words."""

    def __init__(self, title: str, width: int, height: int) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
            f"<title>{title}</title><style>{STYLE}</style>",
            HATCHING,
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]

    def box(self, x: float, y: float, width: float, fill: str, label: str = "") -> None:
        """Draw a cell, or a run of cells."""
        self._parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{CELL}" fill="{fill}" stroke="#555"/>')
        if label:
            self.words(x + width / 2, y + CELL / 2 + 4, label, anchor="middle", small=True)

    def halo(self, x: float, y: float, width: float) -> None:
        """Hatch cells that somebody else owns."""
        self._parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{CELL}" fill="url(#halo)"/>')

    def line(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Draw a line."""
        self._parts.append(f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>')

    def words(self, x: float, y: float, text: str, *, anchor: str = "start", small: bool = False) -> None:
        """Write at a place."""
        style = ' class="small"' if small else ""
        self._parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{style}>{text}</text>')

    def __str__(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])


def draw_tiles() -> Drawing:
    """Draw a signal cut into tiles, each with the halo that its block reads beside its own samples."""
    tile, taps, tiles = 8, 4, 3
    left = 116
    drawing = Drawing("A signal of 24 samples in three tiles, four taps", left + (tile * tiles + 1) * CELL, 262)
    drawing.words(8, 38, "input")
    for i in range(tile * tiles):
        drawing.box(left + i * CELL, 20, CELL, COLOURS[i // tile], str(i))
    for block in range(tiles):
        y = 70 + 38 * block
        drawing.words(8, y + 18, f"block {block} reads")
        x = left + block * tile * CELL
        drawing.box(x, y, tile * CELL, COLOURS[block], "its tile: 8 samples")
        beyond = block == tiles - 1
        if beyond:
            drawing.words(x + tile * CELL - 4, y + 40, "past the end: zeros", anchor="end", small=True)
            continue
        drawing.box(x + tile * CELL, y, (taps - 1) * CELL, COLOURS[block + 1])
        drawing.halo(x + tile * CELL, y, (taps - 1) * CELL)
        meaning = "halo" if block else "halo: taps - 1 = 3 samples of the next tile"
        drawing.words(x + (tile + taps - 1) * CELL + 8, y + 18, meaning, small=True)
    y = 220
    drawing.words(8, y + 18, "output")
    for i in range(tile * tiles):
        drawing.box(left + i * CELL, y, CELL, COLOURS[i // tile], str(i))
    return drawing


def draw_loading() -> Drawing:
    """Draw which thread of a block loads which sample, and what one thread adds up."""
    tile, taps = 8, 4
    left = 126
    drawing = Drawing("Loading a tile and its halo into shared memory", left + (tile + taps + 7) * CELL, 210)
    drawing.words(8, 38, "threads")
    drawing.words(8, 108, "shared memory")
    for i in range(tile + taps - 1):
        x = left + i * CELL
        drawing.box(x, 20, CELL, COLOURS[0] if i < tile else "white", str(i % tile))
        drawing.line(x + CELL / 2, 20 + CELL, x + CELL / 2, 90)
        drawing.box(x, 90, CELL, COLOURS[0 if i < tile else 1], str(i))
    drawing.halo(left + tile * CELL, 90, (taps - 1) * CELL)
    drawing.words(left + (tile + taps) * CELL, 38, "threads 0 to 2 load twice", small=True)
    drawing.words(left + (tile + taps) * CELL, 108, "barrier: all is there", small=True)
    for i in range(6, 6 + taps):
        drawing.line(left + (i + 0.5) * CELL, 90 + CELL, left + 6.5 * CELL, 160)
    drawing.words(8, 178, "output")
    for i in range(tile):
        drawing.box(left + i * CELL, 160, CELL, COLOURS[2] if i == 6 else "white", str(i))  # noqa: PLR2004
    drawing.words(left + (tile + 1) * CELL, 178, "thread 6 adds 4 products, two of the halo", small=True)
    return drawing


def draw_overlap_save() -> Drawing:
    """Draw the blocks of overlap-save: each keeps `hop` outputs and drops those that wrapped around."""
    hop, overlap, left = 220, 70, 96
    drawing = Drawing("Overlap-save: blocks of nfft samples, hop apart", left + 3 * hop + overlap + 110, 190)
    drawing.words(8, 38, "input")
    drawing.box(left, 20, 3 * hop + overlap, "white", "the signal, after taps - 1 samples from before it")
    for block in range(3):
        x, y = left + block * hop, 60 + 34 * block
        drawing.words(8, y + 18, f"FFT {block}")
        drawing.box(x, y, overlap, COLOURS[block])
        drawing.halo(x, y, overlap)
        drawing.box(x + overlap, y, hop, COLOURS[block], "hop outputs are kept")
    drawing.words(
        left, 182, "hatched: taps - 1 samples read twice, whose outputs wrap around and are dropped", small=True
    )
    return drawing


def draw_stream() -> Drawing:
    """Draw blocks of a stream, each behind the last samples of the one before."""
    left, tail = 110, 60
    lengths = (180, 120, 220)
    drawing = Drawing("A stream: the filter remembers taps - 1 samples", left + sum(lengths) + 110, 176)
    x = left
    for i, length in enumerate(lengths):
        y = 20 + 46 * i
        drawing.words(8, y + 18, f"process({i})")
        if i:
            drawing.box(x - tail, y, tail, COLOURS[i - 1])
            drawing.halo(x - tail, y, tail)
        drawing.box(x, y, length, COLOURS[i], f"block {i} in, as many outputs out")
        x += length
    drawing.words(left, 170, "hatched: remembered from the block before, taps - 1 samples", small=True)
    return drawing


def draw_speed() -> Figure:
    """Draw the times of the H200, as README shows them."""
    from maxconv import plot

    results = json.loads((ROOT / "benchmarks/results/gpu.json").read_text())
    return plot.lines(results, dtype="float32", samples=1 << 26)


def as_svg(figure: Figure) -> str:
    """Write a figure as SVG with words that stay words, the same in every run."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "maxconv", "svg.fonttype": "none"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


DRAWINGS = {
    "tiles.svg": draw_tiles,
    "loading.svg": draw_loading,
    "overlap-save.svg": draw_overlap_save,
    "stream.svg": draw_stream,
}


def main() -> int:
    """Write every picture."""
    IMAGES.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (IMAGES / name).write_text(str(draw()))
    (IMAGES / "speed.svg").write_text(as_svg(draw_speed()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
