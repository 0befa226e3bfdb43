// The project's own hand: how its strokes are drawn.

// A Catmull-Rom curve through the points, written as Bézier curves: each point's slope
// is a half of the way between its neighbours, and a Bézier's handle a third of that.
export function path(points) {
  const at = (i) => points[Math.min(Math.max(i, 0), points.length - 1)];
  let text = `M${points[0]}`;
  for (let i = 0; i < points.length - 1; i++) {
    const handle = (p, before, after, sign) =>
      p.map((value, axis) => value + (sign * (after[axis] - before[axis])) / 6);
    text += `C${handle(at(i), at(i - 1), at(i + 1), 1)} `;
    text += `${handle(at(i + 1), at(i), at(i + 2), -1)} ${at(i + 1)}`;
  }
  return text;
}

// A digit's strokes as one SVG group.
export function glyph(strokes) {
  const svg = "http://www.w3.org/2000/svg";
  const group = document.createElementNS(svg, "g");
  for (const stroke of strokes) {
    const line = document.createElementNS(svg, "path");
    line.setAttribute("d", path(stroke));
    group.append(line);
  }
  return group;
}
