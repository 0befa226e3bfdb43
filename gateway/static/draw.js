// The page to draw a digit on.

import { Answer } from "./answer.js";
import { Reader } from "./reader.js";
import { Sheet } from "./sheet.js";

const element = (id) => document.getElementById(id);

const answer = new Answer();
const reader = new Reader();
const sheet = new Sheet(element("sheet"));
let samples = [];
let pressed = ""; // a key whose sample was not known by then
let frame = 0;

// At most one question a frame, however often the pen reports.
function read() {
  cancelAnimationFrame(frame);
  element("bars").ariaBusy = true;
  frame = requestAnimationFrame(async () => {
    frame = 0;
    if (sheet.empty) {
      reader.forget();
      answer.clear();
    } else if (!(await reader.read(() => sheet.picture()))) {
      return; // more is asked
    }
    if (!frame) element("bars").ariaBusy = false;
  });
}

async function learn() {
  const [shown, known] = await Promise.all([reader.get("/samples"), reader.get("/models")]);
  if (!shown || !known) return;
  samples = shown.samples;
  answer.learn(samples.map((sample) => sample.strokes));
  const choices = known.models.filter(({ ready }) => ready).map(({ name, version }) => {
    const query = new URLSearchParams({ model: name, version });
    return new Option(`${name} ${version}`, query);
  });
  element("model").replaceChildren(new Option("default", ""), ...choices);
  element("model").value = reader.model;
  if (samples[pressed]) sheet.write(samples[pressed].strokes);
}

sheet.addEventListener("change", () => {
  pressed = "";
  element("undo").disabled = !sheet.undoable;
  element("clear").disabled = sheet.empty;
  element("sheet").parentElement.classList.toggle("written", !sheet.empty);
  read();
});

reader.addEventListener("answer", ({ detail }) => answer.show(detail));
reader.addEventListener("problem", ({ detail }) => answer.fail(detail.detail));
reader.addEventListener("offline", () => {
  element("connection").textContent = "The server does not answer. Reconnecting …";
});
reader.addEventListener("online", () => {
  element("connection").textContent = "";
  learn();
});

element("undo").addEventListener("click", () => sheet.undo());
element("clear").addEventListener("click", () => sheet.clear());
element("upload").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) await sheet.show(file).catch(() => answer.fail("The file is no picture."));
});
element("model").addEventListener("change", ({ target }) => {
  reader.forget();
  reader.model = target.value;
  read();
});

addEventListener("keydown", (event) => {
  if (event.target.matches("select, input")) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "z") sheet.undo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "Escape" || event.key === "Delete") sheet.clear();
  else if (samples[event.key]) sheet.write(samples[event.key].strokes);
  else pressed = event.key;
});

learn();
