// Deleting with a way back. The server has no undo, and a document that is created anew would be another one (its times,
// its author), so nothing is sent until the time to think is over; a page that is left sends what is due.
import { ask, ifMatch, part, words } from "./api.js";
import { toast } from "./toasts.js";

const SECONDS = 6;

/** Fires `change` when a document is about to be deleted, or no longer. */
export class Deletions extends EventTarget {
  #client;
  #shown;
  #due = new Map();

  /** @param shown Whether a live result has a document now: `shown(resource, id)`. */
  constructor(client, shown) {
    super();
    this.#client = client;
    this.#shown = shown;
    addEventListener("pagehide", this.#leave);
  }

  close() {
    removeEventListener("pagehide", this.#leave);
    this.#leave();
  }

  /** Whether a document is about to be deleted, so that tables leave it out. */
  has(resource, id) {
    return this.#due.has(`${resource}/${id}`);
  }

  get any() {
    return this.#due.size > 0;
  }

  /** Delete soon; `etag` is that of the form in which the person has seen the document, for classes that want to know. */
  add({ name: resource, path: place, conditional }, { id, title, etag }) {
    const key = `${resource}/${id}`;
    if (this.#due.has(key)) return;
    const path = `${part(place)}/${part(id)}`;
    const headers = ifMatch(conditional, etag);
    const remove = toast(`Deleted: ${title}`, { action: "Undo", act: () => this.#forget(key), seconds: SECONDS });
    const timer = setTimeout(() => this.#send(key), SECONDS * 1000);
    this.#due.set(key, { resource, id, path, headers, timer, remove, title });
    this.#changed();
  }

  #forget(key) {
    clearTimeout(this.#due.get(key)?.timer);
    this.#due.delete(key);
    this.#changed();
  }

  async #send(key) {
    const { resource, id, path, headers, title } = this.#due.get(key);
    const problem = await ask(this.#client, "DELETE", path, { headers }).then(() => null, (error) => error);
    // The row's leaving may come a moment later than the answer.
    setTimeout(() => {
      this.#forget(key);
      // 404: somebody was faster, which is what was wanted, unless the document is still there.
      const done = !problem || (problem.status === 404 && !this.#shown(resource, id));
      if (!done) toast(`Not deleted: ${title}. ${words(problem)}`, { kind: "problem", seconds: 12 });
    }, 500);
  }

  #leave = () => {
    for (const [key, { path, headers, timer, remove }] of this.#due) {
      clearTimeout(timer);
      remove();
      ask(this.#client, "DELETE", path, { headers, keepalive: true }).catch(() => null);
      this.#due.delete(key);
    }
  };

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
