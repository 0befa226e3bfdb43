// How images of 28 × 28 and shares are shown.

// Rounded down: nothing is certain.
export const percent = (share) => `${Math.floor(1000 * share) / 10} %`;

// Draws rows of values from 0 to 1 in the canvas's own colour.
export function paint(canvas, rows) {
  canvas.width = canvas.height = 28;
  const [red, green, blue] = getComputedStyle(canvas).color.match(/[\d.]+/g);
  const image = new ImageData(28, 28);
  rows.flat().forEach((ink, i) => image.data.set([red, green, blue, 255 * ink], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
}
