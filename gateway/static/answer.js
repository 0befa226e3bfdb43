// Shows what the model sees and says: ten digits written over each other, each in ink as
// strong as its probability, and a bar for each.

import { glyph } from "./hand.js";
import { paint, percent } from "./pixels.js";

const DIGITS = [...Array(10).keys()];
const QUIET = 500; // ms without a change before it is spoken

const NOTHING = Array(28).fill(Array(28).fill(0));

const element = (id) => document.getElementById(id);

export class Answer {
  #rows = DIGITS.map((digit) => {
    const row = document.createElement("li");
    row.append(...["i", "b", "small"].map((tag) => document.createElement(tag)));
    row.children[1].textContent = digit;
    return row;
  });
  #glyphs = [];
  #shown = [];
  #seen = [];
  #speaking = 0;

  constructor() {
    element("bars").append(...this.#rows);
    this.clear();
    document.documentElement.addEventListener("themechange", () => this.#see(...this.#seen));
  }

  // How the model writes: the strokes of each digit.
  learn(strokes) {
    this.#glyphs = strokes.map(glyph);
    element("answer").replaceChildren(...this.#glyphs);
    this.#probabilities(...this.#shown);
  }

  show({ predicted_digit: digit, confidence, probabilities, pixels, took, ...answer }) {
    const words = `${digit}, ${percent(confidence)}`;
    this.#probabilities(probabilities, digit);
    this.#see(pixels, `What the model sees: a ${digit}, in 28 by 28 pixels`);
    this.#say(words);
    element("problem").textContent = "";
    element("took").textContent = `${answer.model} ${answer.model_version}, ${took.toFixed(0)} ms`;
    element("answer").setAttribute("aria-label", `The model's answer: ${words}`);
  }

  fail(sentence) {
    this.clear();
    this.#say(sentence);
    element("problem").textContent = sentence;
  }

  clear() {
    this.#probabilities(Array(10).fill(0));
    this.#see(NOTHING, "What the model sees: nothing yet");
    this.#say("");
    element("problem").textContent = element("took").textContent = "";
    element("answer").setAttribute("aria-label", "The model's answer: none yet");
  }

  #probabilities(probabilities, first) {
    for (const digit of DIGITS) {
      const [bar, , share] = this.#rows[digit].children;
      const probability = probabilities[digit];
      bar.style.transform = `scaleY(${probability})`;
      share.textContent = percent(probability);
      this.#rows[digit].classList.toggle("first", digit === first);
      if (this.#glyphs[digit]) this.#glyphs[digit].style.opacity = probability;
    }
    this.#shown = [probabilities, first];
  }

  #see(pixels, words) {
    paint(element("seen"), pixels);
    element("seen").setAttribute("aria-label", words);
    this.#seen = [pixels, words];
  }

  #say(words) {
    clearTimeout(this.#speaking);
    this.#speaking = setTimeout(() => (element("spoken").textContent = words), QUIET);
  }
}
