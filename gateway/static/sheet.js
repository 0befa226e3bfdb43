// What people write on: strokes and pictures, each of which can be undone.

import { path } from "./hand.js";

const PEN = 0.07; // of the side, as the project's own samples have it
const STEP = 0.04; // of an arrow key
const SENT = 224; // pixels: eight for each that the model sees

export class Sheet extends EventTarget {
  #canvas;
  // Each holds {strokes}, lists of points, with {curve}, how to join them, or an uploaded
  // {file} with its {bitmap}; one that {covers} takes the place of all before it.
  #entries = [];
  #pen = null; // the stroke that is being written
  #keyboard = { at: [0.5, 0.5], down: false };

  constructor(canvas) {
    super();
    this.#canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => (this.#pen = null));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    for (const focus of ["focus", "blur"]) canvas.addEventListener(focus, () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
    document.documentElement.addEventListener("themechange", () => this.draw());
  }

  get undoable() {
    return this.#entries.length > 0;
  }

  get empty() {
    return this.#visible().every((entry) => !entry.file && !entry.strokes.length);
  }

  undo() {
    this.#entries.pop();
    this.#changed();
  }

  clear() {
    if (!this.empty) this.#add({ strokes: [], covers: true });
  }

  write(strokes) {
    this.#add({ strokes, curve: path, covers: true });
  }

  async show(file) {
    this.#add({ file, bitmap: await createImageBitmap(file), strokes: [], covers: true });
  }

  // What is to be recognised: an uploaded file as it is, or the strokes in black on white.
  async picture() {
    const visible = this.#visible();
    const uploaded = visible.find((entry) => entry.file);
    if (uploaded) return uploaded.file;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SENT;
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, SENT, SENT);
    context.scale(SENT, SENT);
    this.#strokes(context, "black");
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  draw() {
    const canvas = this.#canvas;
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    context.setTransform(side, 0, 0, side, 0, 0);
    context.clearRect(0, 0, 1, 1);
    for (const { bitmap } of this.#visible()) if (bitmap) contain(context, bitmap);
    const ink = getComputedStyle(canvas).color;
    this.#strokes(context, ink);
    if (canvas.matches(":focus-visible")) this.#crosshair(context, ink);
  }

  // A stroke after a picture takes its place.
  #visible() {
    const covering = this.#entries.findLastIndex((entry) => entry.covers);
    const visible = this.#entries.slice(Math.max(covering, 0));
    return visible.length > 1 && visible[0].file ? visible.slice(1) : visible;
  }

  #strokes(context, colour) {
    context.strokeStyle = colour;
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = "round";
    for (const { strokes, curve } of this.#visible()) {
      for (const points of strokes) context.stroke(new Path2D(curve(points)));
    }
  }

  #crosshair(context, colour) {
    const { at, down } = this.#keyboard;
    context.beginPath();
    context.arc(...at, PEN, 0, 2 * Math.PI);
    context.strokeStyle = colour;
    context.lineWidth = down ? 0.012 : 0.004;
    context.stroke();
  }

  #down(event) {
    if (event.button !== 0 || this.#pen) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pen = { id: event.pointerId, points: [this.#at(event)] };
    this.#add({ strokes: [this.#pen.points], curve: smooth });
  }

  #move(event) {
    if (event.pointerId !== this.#pen?.id) return;
    for (const one of event.getCoalescedEvents()) this.#pen.points.push(this.#at(one));
    this.#changed();
  }

  #at(event) {
    const box = this.#canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #key(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const pen = this.#keyboard;
    if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) this.#add({ strokes: [[pen.at]], curve: smooth });
    } else if (event.key in arrows) {
      const clamp = (value) => Math.min(Math.max(value, 0), 1);
      pen.at = pen.at.map((value, axis) => clamp(value + STEP * arrows[event.key][axis]));
      if (pen.down) this.#entries.at(-1)?.strokes.at(-1)?.push(pen.at);
      this.#changed();
    } else {
      return;
    }
    event.preventDefault();
    this.draw();
  }

  #add(entry) {
    this.#entries.push(entry);
    this.#changed();
  }

  #changed() {
    this.draw();
    this.dispatchEvent(new Event("change"));
  }
}

// Through the middles between points, which takes the corners off. It starts with a dot,
// which a canvas draws if it has a length.
function smooth(points) {
  const [[x, y]] = points;
  let text = `M${x} ${y}h0.001`;
  for (let i = 1; i < points.length; i++) {
    const middle = points[i].map((value, axis) => (value + points[i - 1][axis]) / 2);
    text += `Q${points[i - 1]} ${middle}`;
  }
  return `${text}L${points.at(-1)}`;
}

function contain(context, bitmap) {
  const scale = 1 / Math.max(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  context.drawImage(bitmap, (1 - width) / 2, (1 - height) / 2, width, height);
}
