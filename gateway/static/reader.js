// Asks the gateway what it reads: one question at a time, and of those that wait the last.

const RETRY = 1000; // ms between two looks at a server that is gone
const WATCH = 5000; // ms between two looks at one that is there
const PATIENCE = 10000; // ms, the most that an answer may ask to wait for the next
const BUSY = 429;
const GONE = [503, 504];
const GARBLED = "What came back is no answer of the gateway's: draw on to ask again.";

export class Reader extends EventTarget {
  model = ""; // query, such as "model=digitnet&version=1"; empty for the default
  #picture = null; // makes what is to be read next
  #asking = null; // an AbortController while a question is under way
  #online = true;
  #wake = () => {}; // looks at the server now

  constructor() {
    super();
    this.#watch();
  }

  // Reads what `picture` makes, once nothing else is read. Answers come in order; true
  // says that there are no more to come.
  async read(picture) {
    this.#picture = picture;
    if (this.#asking) return false;
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    while (this.#picture && !signal.aborted) await this.#ask(signal);
    if (signal.aborted) return false;
    this.#asking = null;
    return true;
  }

  // Forgets what is asked: no answer to it will come.
  forget() {
    this.#picture = null;
    this.#asking?.abort();
    this.#asking = null;
  }

  // Returns what is at a path, once there is an answer; nothing if that is a problem.
  async get(path) {
    for (;;) {
      const response = await this.#fetch(path, { headers: { accept: "application/json" } });
      if (response) return response.ok && response.json();
    }
  }

  async #ask(signal) {
    const make = this.#picture;
    this.#picture = null;
    const body = await make();
    const headers = { "content-type": body.type };
    const started = performance.now();
    const response = await this.#fetch(`/predict/image?${this.model}`, {
      method: "POST",
      body,
      headers,
      signal,
    });
    const answer = await response?.json().catch(() => ({ detail: GARBLED }));
    if (signal.aborted) return;
    const took = performance.now() - started;
    if (!response) this.#picture ??= make; // unless there is something newer by now
    else if (response.ok && !answer.detail) this.#tell("answer", { ...answer, took });
    else this.#tell("problem", answer);
  }

  // Returns an answer; nothing, after a while, if it is to be asked for again.
  async #fetch(path, options) {
    const response = await fetch(path, options).catch(() => null);
    if (options.signal?.aborted) return null;
    if (response && response.status !== BUSY && !GONE.includes(response.status)) return response;
    if (response?.status !== BUSY) this.#wake();
    const asked = 1000 * response?.headers.get("retry-after") || 0; // or a date, which is NaN
    await sleep(Math.min(Math.max(asked, RETRY), PATIENCE));
    return null;
  }

  async #watch() {
    for (;;) {
      this.#say(await fetch("/readyz").then(({ ok }) => ok, () => false));
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, this.#online ? WATCH : RETRY);
      });
    }
  }

  #say(online) {
    if (online === this.#online) return;
    this.#online = online;
    this.#tell(online ? "online" : "offline");
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
