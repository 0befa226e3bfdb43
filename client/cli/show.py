"""How digits and probabilities look in a terminal."""

import numpy as np
import numpy.typing as npt
from rich.bar import Bar
from rich.color import Color
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from client import Prediction

UPPER_HALF = "▀"
# By whether the upper and the lower pixel of a cell are ink.
BLOCKS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
INK = 0.5
BAR = 24


def digit(pixels: npt.NDArray[np.float32], console: Console) -> Text:
    """Draws an image in half blocks, two pixels to a character cell.

    Args:
        pixels: [28, 28] in [0, 1].
        console: Where it will be printed: in grey levels where there are colours,
            else in black and white.
    """
    colours = console.color_system is not None and not console.no_color
    rows = [
        Text.assemble(
            *(
                (UPPER_HALF, Style(color=_grey(upper), bgcolor=_grey(lower)))
                if colours
                else BLOCKS[upper > INK, lower > INK]
                for upper, lower in zip(above.tolist(), below.tolist(), strict=True)
            )
        )
        for above, below in zip(pixels[::2], pixels[1::2], strict=True)
    ]
    return Text("\n", no_wrap=True).join(rows)


def answer(
    title: str,
    pixels: npt.NDArray[np.float32],
    label: int | None,
    prediction: Prediction,
    console: Console,
) -> RenderableType:
    """Shows an image, what it was taken for, and the probability of each digit."""
    heading = Text.assemble((title, "bold"), "  ", (str(prediction.digit), "bold"))
    heading.append(f"  {prediction.confidence:.2%}", "dim")
    if label is not None:
        right = label == prediction.digit
        heading.append(f"  true label {label}: ", "dim")
        heading.append("right" if right else "wrong", "green" if right else "bold red")
    return Group(
        heading, Columns([digit(pixels, console), Padding(_bars(prediction), (2, 0, 0, 1))]), ""
    )


def _bars(prediction: Prediction) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right")
    table.add_column(width=BAR)
    table.add_column(justify="right")
    for number, probability in enumerate(prediction.probabilities.tolist()):
        style = "bold" if number == prediction.digit else "dim"
        table.add_row(
            Text(str(number), style),
            Bar(1, 0, probability, width=BAR),
            Text(f"{probability:.2%}", style),
        )
    return table


def _grey(value: float) -> Color:
    level = round(value * 255)
    return Color.from_rgb(level, level, level)
