// What happened, newest first. A pause holds the list still and counts what comes meanwhile.
import { fill, h } from "../dom.js";
import { clockText, countText } from "./values.js";

const MOST = 300;
/** At a hundred changes a second nobody reads them one by one. */
const DRAW_MS = 200;
export const OPS = { create: "created", enter: "entered", update: "changed", leave: "left", delete: "deleted" };

export class Log {
  #waiting = [];
  #held = [];
  #paused = false;
  #timer = null;

  constructor(onOpen) {
    this.list = h("ol.log-list", { tabindex: "0", "aria-label": "Events, newest first" });
    this.empty = h("p.log-empty", {}, "Changes of what you look at appear here, whoever makes them.");
    this.pause = h("button.quiet", { type: "button", "aria-pressed": "false", on: { click: () => this.#toggle() } }, "Pause");
    this.count = h("span.soft", { "aria-live": "off" });
    const clear = h("button.quiet", { type: "button", on: { click: () => this.clear() } }, "Clear");
    this.element = h("section.log", { "aria-label": "Event log" },
      h("header", {}, h("h2", {}, "Events"), this.count, h("span.space"), this.pause, clear), this.empty, this.list);
    this.list.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-id]");
      if (button) onOpen(button.dataset.resource, button.dataset.id);
    });
  }

  /** Add an event of a live result; `title` is what its document is called. Without a `resource` it cannot be opened. */
  add(resource, event, title) {
    this.#waiting.push({ resource, event, title });
    if (this.#waiting.length > MOST) this.#waiting.shift();
    this.#timer ??= setTimeout(() => this.#draw(), DRAW_MS);
  }

  /** Add a line about the connection. */
  note(text) {
    this.add(null, { op: "note", at: new Date().toISOString() }, text);
  }

  clear() {
    this.#waiting = [];
    this.#held = [];
    this.list.replaceChildren();
    this.empty.hidden = false;
    this.#tell();
  }

  #toggle() {
    this.#paused = !this.#paused;
    this.pause.setAttribute("aria-pressed", String(this.#paused));
    this.pause.textContent = this.#paused ? "Go on" : "Pause";
    if (!this.#paused) {
      this.#waiting = [...this.#held, ...this.#waiting];
      this.#held = [];
      this.#draw();
    }
    this.#tell();
  }

  #tell() {
    this.count.textContent = this.#held.length ? `${countText(this.#held.length)}${this.#held.length === MOST ? "+" : ""} new` : "";
  }

  #draw() {
    this.#timer = null;
    if (this.#paused) {
      this.#held = [...this.#held, ...this.#waiting].slice(-MOST);
      this.#waiting = [];
      this.#tell();
      return;
    }
    if (!this.#waiting.length) return;
    this.empty.hidden = true;
    this.list.prepend(...this.#waiting.map(line).reverse());
    this.#waiting = [];
    while (this.list.childElementCount > MOST) this.list.lastElementChild.remove();
  }
}

function line({ resource, event, title }) {
  const time = h("time", { datetime: event.at }, clockText(event.at));
  if (event.op === "note") return h("li.note", {}, time, h("span", {}, title));
  const closed = !resource || event.op === "delete" || event.op === "leave";
  const name = closed ? h("span.name", {}, title) : h("button.plain.name", { type: "button", dataset: { resource, id: event.id } }, title);
  const item = h("li", {}, time, h("span.op", { dataset: { op: event.op } }, OPS[event.op]), name);
  if (event.changed?.length) fill(item, [...item.childNodes], h("span.changed", {}, event.changed.join(", ")));
  return item;
}
