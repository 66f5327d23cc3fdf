// The state of the connection, how many changes come, and how late: a minute of each.
import { fill, h, svg } from "../dom.js";

const SECONDS = 60;
const WIDTH = 84;
const HEIGHT = 22;
export const STATES = {
  live: ["Live", "Everything shown is as the server has it."],
  connecting: ["Connecting", "The first result is on its way."],
  stale: ["Catching up", "What is shown may be older than what the server has."],
  offline: ["Offline", "The server cannot be reached. What is shown is the last that came; it mends itself."],
};

/** A minute of numbers, one for each second, as a line over an area. */
class Sparkline {
  #values = new Array(SECONDS).fill(0);

  constructor(label) {
    this.line = svg("path", { class: "spark-line", d: "" });
    this.area = svg("path", { class: "spark-area", d: "" });
    this.value = h("span.meter-value", {}, "–");
    this.element = h("div.meter", { role: "img", "aria-label": label },
      h("span.meter-label", {}, label),
      svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "spark", "aria-hidden": "true", preserveAspectRatio: "none" }, this.area, this.line),
      this.value);
    this.label = label;
  }

  push(value, text) {
    this.#values = [...this.#values.slice(1), value];
    const most = Math.max(1, ...this.#values);
    const step = WIDTH / (SECONDS - 1);
    const points = this.#values.map((one, at) => `${(at * step).toFixed(1)},${(HEIGHT - 1.5 - (one / most) * (HEIGHT - 3)).toFixed(1)}`);
    this.line.setAttribute("d", `M${points.join("L")}`);
    this.area.setAttribute("d", `M0,${HEIGHT}L${points.join("L")}L${WIDTH},${HEIGHT}Z`);
    this.value.textContent = text;
    this.element.setAttribute("aria-label", `${this.label}: ${text}`);
  }
}

export class Meters {
  #client;
  #events = 0;
  #worst = 0;
  #offs = [];
  #timer;

  /** @param {import("/client/headwater.js").Headwater} client */
  constructor(client) {
    this.#client = client;
    this.rate = new Sparkline("Changes");
    this.lag = new Sparkline("Delay");
    this.dot = h("span.state-text", {}, "");
    this.state = h("div.state", { role: "status" }, h("span.state-dot", { "aria-hidden": "true" }), this.dot);
    this.element = h("div.meters", {}, this.rate.element, this.lag.element, this.state);
    this.#offs.push(client.on("state", () => this.#show()));
    this.#timer = setInterval(() => this.#tick(), 1000);
    this.#show();
  }

  close() {
    clearInterval(this.#timer);
    for (const off of this.#offs) off();
  }

  /** Say that nothing on the page is live, or that something is. */
  rest(resting) {
    this.element.hidden = resting;
  }

  /** Count one event. */
  count() {
    this.#events += 1;
    this.#worst = Math.max(this.#worst, this.#client.lag);
  }

  #show() {
    const { state } = this.#client;
    const [text, title] = STATES[state];
    this.state.dataset.state = state;
    this.state.title = title;
    if (this.dot.textContent !== text) fill(this.dot, text);
  }

  #tick() {
    const delay = this.#client.state === "live" ? this.#worst : this.#client.lag;
    this.rate.push(this.#events, `${this.#events}/s`);
    this.lag.push(delay, delay >= 10_000 ? `${Math.round(delay / 1000)} s` : `${Math.round(delay)} ms`);
    this.#events = 0;
    this.#worst = 0;
    this.#show();
  }
}
