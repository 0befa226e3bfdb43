"""Ten digits written by the project itself, for a first try without any data set.

Each digit is one or more strokes; each stroke is a list of points that the pen
passes, joined by a Catmull-Rom curve. Coordinates are fractions of the picture's side,
from the top left.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Stroke = list[tuple[float, float]]

STROKES: dict[int, list[Stroke]] = {
    0: [[(.52, .18), (.36, .27), (.29, .50), (.35, .74), (.50, .83), (.65, .73), (.71, .49),
         (.65, .26), (.52, .18)]],
    1: [[(.54, .17), (.52, .40), (.50, .62), (.48, .84)]],
    2: [[(.31, .34), (.37, .22), (.52, .17), (.66, .25), (.66, .40), (.55, .56), (.40, .70),
         (.29, .81)], [(.29, .81), (.50, .79), (.73, .80)]],
    3: [[(.33, .24), (.47, .17), (.63, .22), (.66, .34), (.58, .45), (.45, .48)],
        [(.45, .48), (.61, .52), (.69, .65), (.61, .79), (.45, .84), (.31, .77)]],
    4: [[(.40, .17), (.35, .34), (.29, .53)], [(.29, .53), (.50, .54), (.74, .52)],
        [(.62, .19), (.60, .50), (.58, .85)]],
    5: [[(.38, .19), (.36, .33), (.34, .46)],
        [(.34, .46), (.49, .41), (.64, .49), (.68, .64), (.59, .79), (.44, .84), (.31, .77)],
        [(.38, .19), (.52, .20), (.68, .18)]],
    6: [[(.60, .16), (.45, .30), (.35, .50), (.33, .68), (.42, .82), (.57, .82), (.66, .71),
         (.60, .58), (.46, .56), (.35, .66)]],
    7: [[(.28, .22), (.48, .23), (.71, .20)], [(.71, .20), (.60, .42), (.51, .62), (.44, .85)]],
    8: [[(.62, .25), (.49, .17), (.37, .25), (.40, .39), (.52, .49), (.64, .61), (.64, .76),
         (.50, .84), (.36, .76), (.37, .61), (.50, .49), (.62, .38), (.62, .25)]],
    9: [[(.65, .31), (.54, .19), (.39, .24), (.35, .39), (.45, .50), (.59, .45), (.65, .31)],
        [(.65, .31), (.64, .55), (.60, .85)]],
}  # fmt: skip


def draw(digit: int, side: int = 280, thickness: float = 0.07) -> Image.Image:
    """Draws a digit as a pen would, dark on white.

    Args:
        digit: 0 to 9.
        side: Width and height of the picture, in pixels.
        thickness: Width of the pen, as a fraction of the side.

    Returns:
        A greyscale picture, to be prepared as any other (`client.images.prepare`).
    """
    # Pillow draws hard edges: draw larger, and let the reduction smooth them.
    scale = 4
    picture = Image.new("L", (side * scale, side * scale), "white")
    pen = ImageDraw.Draw(picture)
    radius = thickness * side * scale / 2
    for stroke in STROKES[digit]:
        for x, y in curve(stroke) * side * scale:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill="black")
    return picture.reduce(scale)


def curve(stroke: Stroke, steps: int = 60) -> npt.NDArray[np.float64]:
    """Returns points along a stroke, float64 [n, 2], `steps` between two of its own.

    The uniform Catmull-Rom spline: Catmull and Rom, "A class of local interpolating
    splines", 1974.
    """
    points = np.array([stroke[0], *stroke, stroke[-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = [
        0.5
        * (
            2 * b
            + (c - a) * t
            + (2 * a - 5 * b + 4 * c - d) * t**2
            + (3 * b - a - 3 * c + d) * t**3
        )
        for a, b, c, d in zip(points, points[1:], points[2:], points[3:], strict=False)
    ]
    return np.concatenate([*pieces, points[-1:]])
