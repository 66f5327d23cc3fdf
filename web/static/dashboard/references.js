// Names in place of ids: `author_id` is shown as the user's name, as far as the person may read it.
import { Problem, ask, part } from "./api.js";

/** What a document is called by, the best first. */
const NAMES = ["username", "title", "name", "filename"];
const WAIT_MS = 30;
/** What fits into one condition of a filter. */
const MOST = 100;
const KEEP_MS = 60_000;

/** Fires `change` when names have come. */
export class References extends EventTarget {
  #client;
  #known = new Map();
  #wanted = new Map();
  /** What this person may not read; whoever signs in gets References of their own. */
  #refused = new Set();
  #timer = null;

  constructor(client) {
    super();
    this.#client = client;
  }

  /** The name of a document, or its id while there is none. */
  name(resource, id) {
    const key = `${resource}/${id}`;
    const known = this.#known.get(key);
    if (!this.#refused.has(resource) && (!known || known.until < performance.now())) {
      this.#known.set(key, { name: known?.name ?? id, until: performance.now() + KEEP_MS });
      if (!this.#wanted.has(resource)) this.#wanted.set(resource, new Set());
      this.#wanted.get(resource).add(id);
      this.#timer ??= setTimeout(() => this.#fetch(), WAIT_MS);
    }
    return this.#known.get(key)?.name ?? id;
  }

  async #fetch() {
    this.#timer = null;
    const wanted = this.#wanted;
    this.#wanted = new Map();
    let found = false;
    for (const [resource, all] of wanted) {
      const ids = [...all];
      for (let at = 0; at < ids.length; at += MOST) {
        const filter = JSON.stringify({ id: { $in: ids.slice(at, at + MOST) } });
        // What may not be read, and what is not there, keeps its id.
        const items = await ask(this.#client, "GET", part(resource), { query: { filter, limit: String(MOST) } })
          .then(({ content }) => content.items, (error) => this.#without(resource, error));
        if (this.#refused.has(resource)) break;
        for (const item of items) {
          const name = NAMES.map((field) => item[field]).find((value) => typeof value === "string" && value);
          if (name) this.#known.set(`${resource}/${item.id}`, { name, until: performance.now() + KEEP_MS });
          found ||= Boolean(name);
        }
      }
    }
    if (found) this.dispatchEvent(new Event("change"));
  }

  #without(resource, error) {
    if (error instanceof Problem && [401, 403].includes(error.status)) this.#refused.add(resource);
    return [];
  }

  /** Documents to choose from, newest first: `{id, name}`. */
  async choices(resource) {
    const { content } = await ask(this.#client, "GET", part(resource), { query: { limit: "50" } });
    return content.items.map((item) => ({ id: item.id, name: NAMES.map((field) => item[field]).find(Boolean) ?? item.id }));
  }
}
