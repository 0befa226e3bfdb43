// The gallery.

import { glyph } from "./hand.js";
import { paint, percent } from "./pixels.js";

const svg = "http://www.w3.org/2000/svg";

function card({ digit, strokes, pixels, predicted_digit: answer, confidence }) {
  const sheet = document.createElement("div");
  sheet.className = "sheet";
  const drawing = document.createElementNS(svg, "svg");
  drawing.setAttribute("viewBox", "0 0 1 1");
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", `A written ${digit}`);
  drawing.append(glyph(strokes));
  sheet.append(drawing);

  const line = document.createElement("p");
  const seen = document.createElement("canvas");
  seen.setAttribute("role", "img");
  seen.setAttribute("aria-label", `The same in 28 by 28 pixels`);
  const said = document.createElement("b");
  said.textContent = answer;
  const sure = document.createElement("small");
  sure.textContent = percent(confidence);
  line.append(seen, said, sure);

  const item = document.createElement("li");
  item.append(sheet, line);
  const repaint = () => paint(seen, pixels);
  document.documentElement.addEventListener("themechange", repaint);
  requestAnimationFrame(repaint);
  return item;
}

async function load() {
  const answer = await fetch("/samples", { headers: { accept: "application/json" } });
  if (!answer.ok) throw new Error(answer.statusText);
  const { samples } = await answer.json();
  document.querySelector("#samples").replaceChildren(...samples.map(card));
}

const connection = document.querySelector("#connection");
for (;;) {
  try {
    await load();
    connection.textContent = "";
    break;
  } catch {
    connection.textContent = "The server does not answer. Reconnecting …";
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}
