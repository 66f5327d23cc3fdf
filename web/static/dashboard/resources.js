// The classes at the side, each with how many of its documents the person may read.
import { fill, h } from "../dom.js";
import { ask, part } from "./api.js";
import { labelText } from "./results.js";
import { countText } from "./values.js";

/** Counts are read again so often while the page is in sight, and this long after a change, at most. */
const EACH_MS = 15_000;
const AFTER_MS = 1_000;

export class Resources {
  #client;
  #summaries;
  #counts = new Map();
  #timers = new Map();
  #each;

  /** @param summaries Those of `GET /schemas` that the person may look at. */
  constructor(client, summaries, admin) {
    this.#client = client;
    this.#summaries = summaries;
    this.element = h("nav.side", { "aria-label": "Resources" });
    const group = (title, members) => members.length ? [h("h2", {}, title), h("ul", {}, members)] : null;
    const link = ({ name }) => {
      const count = h("span.count");
      this.#counts.set(name, count);
      return h("li", {}, h("a", { href: `#/${part(name)}`, dataset: { page: name } }, h("span", {}, labelText({ name })), count));
    };
    fill(this.element,
      group("Resources", summaries.filter((one) => one.generic).map(link)),
      group("Accounts and files", summaries.filter((one) => !one.generic).map(link)),
      admin ? group("Server", [h("li", {}, h("a", { href: "#/admin", dataset: { page: "admin" } }, "Operations"))]) : null,
      // Where the line at the top has no room for them.
      h("div.guides", {}, group("Documentation", [["/docs", "API"], ["/docs/live", "Live protocol"], ["/redoc", "Reference"]]
        .map(([href, text]) => h("li", {}, h("a", { href }, text))))));
    this.#each = setInterval(() => {
      if (document.visibilityState === "visible") this.#countAll();
    }, EACH_MS);
    this.#countAll();
  }

  close() {
    clearInterval(this.#each);
    for (const timer of this.#timers.values()) clearTimeout(timer);
  }

  /** Say which page is shown. */
  point(page) {
    for (const link of this.element.querySelectorAll("a")) {
      if (link.dataset.page !== page) {
        link.removeAttribute("aria-current");
        continue;
      }
      link.setAttribute("aria-current", "page");
      // On a phone they are one line.
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  /** A document has come or gone: count soon, and not for each of many. */
  changed(name) {
    if (this.#timers.has(name)) return;
    this.#timers.set(name, setTimeout(() => {
      this.#timers.delete(name);
      this.#count(name);
    }, AFTER_MS));
  }

  #countAll() {
    for (const { name, generic } of this.#summaries) if (generic) this.#count(name);
  }

  async #count(name) {
    if (!this.#summaries.find((one) => one.name === name)?.generic) return;
    const answer = await ask(this.#client, "GET", part(name), { query: { count: "exact", limit: "1", fields: "id" } }).catch(() => null);
    if (answer) this.#counts.get(name).textContent = countText(answer.content.total);
  }
}
