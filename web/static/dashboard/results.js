// The page of one class: its live result as a table, with what narrows, orders and pages it.
import { fill, h } from "../dom.js";
import { Filters } from "./filters.js";
import { Grid } from "./grid.js";
import { menu } from "./menu.js";
import { LIMIT, MOST, PAGE_SIZES } from "./query.js";
import { cellText, countText } from "./values.js";

const SHOWN = { connecting: "Reading …", stale: "", live: "", offline: "" };

/** Fires `query` (detail: Query), `open` (detail: id), `create`, `delete` (detail: {id, title, etag}), `event` (detail: LiveEvent). */
export class Results extends EventTarget {
  #client;
  #deletions;
  #query;
  #live = null;
  #asked = "";
  #offs = [];
  #titles = new Map();

  constructor({ client, description, query, references, deletions, canCreate }) {
    super();
    this.#client = client;
    this.#deletions = deletions;
    this.description = description;
    this.filters = new Filters(description, query);
    this.filters.addEventListener("change", ({ detail }) => this.#ask(this.#query.with(detail)));
    this.grid = new Grid(`${labelText(description)}, live`, (field, value) =>
      field.reference && typeof value === "string" ? references.name(field.reference, value) : null);
    // Classes without routes, such as sessions, are only to be looked at.
    this.grid.addEventListener("open", ({ detail }) => description.path && this.#tell("open", detail));
    this.grid.addEventListener("delete", ({ detail }) => {
      if (description.path && description.may.includes("delete")) this.#tell("delete", { id: detail, title: this.titleOf(detail), etag: this.#live?.etag(detail) });
    });
    this.grid.addEventListener("sort", ({ detail }) => this.#sort(detail));
    this.#listen(references, "change", () => this.grid.redraw());
    this.#listen(deletions, "change", () => this.#draw());
    this.count = h("span.count");
    this.note = h("p.result-note", { role: "status" });
    this.foot = h("div.pages");
    this.element = h("section.results", { "aria-labelledby": "page-title" },
      h("header.page-head", {},
        h("h1", { id: "page-title" }, labelText(description)), this.count,
        h("p.page-about", {}, sentenceOf(description.description)),
        h("span.space"),
        canCreate ? h("button.primary", { type: "button", on: { click: () => this.#tell("create") } }, `New ${description.label.toLowerCase()}`) : null),
      h("div.tools", {}, this.filters.element, h("span.space"), this.#sortMenu(), this.#columnMenu()),
      this.filters.problem, this.note, this.grid.element, this.foot);
    this.show(query);
  }

  #listen(target, name, listener) {
    target.addEventListener(name, listener);
    this.#offs.push(() => target.removeEventListener(name, listener));
  }

  /** Show a query: a new subscription if it is another result, a new page or other columns if not. */
  show(query) {
    this.#query = query;
    this.filters.show(query);
    const columns = query.shown(this.description);
    this.grid.setFields(columns.map((name) => this.description.columns.find((field) => field.name === name)), query.order(this.description));
    const asked = {
      filter: query.filter(this.description),
      sort: query.order(this.description),
      // What names the document in the log comes along.
      fields: [...new Set([...columns, this.description.title])].filter((name) => name !== "id"),
      limit: query.limit,
    };
    if (!asked.fields.length) delete asked.fields;
    const key = JSON.stringify(asked);
    if (key === this.#asked) {
      this.#draw();
      return;
    }
    this.#asked = key;
    this.filters.refuse("");
    const former = this.#live;
    const live = this.#client.live(this.description.name, asked);
    this.#live = live;
    // Whatever both results have in common stays in sight until the new one is there.
    former?.close();
    live.on("change", ({ events }) => this.#live === live && this.#changed(events));
    live.on("event", (event) => this.#live === live && this.#heard(event));
    live.on("state", () => this.#live === live && this.#draw());
    live.on("error", ({ code, message }) => this.#live === live && this.#refused(code, message));
    this.#draw();
  }

  /** Resolves when the table has everything up to a position. */
  caughtUp(position) {
    return this.#live.caughtUp(position);
  }

  /** Whether a document is in the result now. */
  has(id) {
    return this.#live?.state === "live" && this.#live.etag(id) !== undefined;
  }

  close() {
    this.#live?.close();
    this.#live = null;
    this.grid.close();
    for (const off of this.#offs) off();
  }

  /** What a document is called, also when it has just gone. */
  titleOf(id) {
    return this.#titles.get(id) ?? id;
  }

  #heard(event) {
    if (event.document) this.#name(event.document);
    this.#tell("event", event);
    if (event.op === "delete" || event.op === "leave") {
      if (!this.#deletions.has(this.description.name, event.id)) this.grid.leave(event.id);
      this.#titles.delete(event.id);
    } else {
      this.grid.mark(event.id, event.op, event.changed);
    }
  }

  #changed(events) {
    if (!events.length) {
      this.#titles.clear();
      for (const item of this.#live.items) this.#name(item);
    }
    this.#draw();
  }

  #name(item) {
    const title = cellText(item[this.description.title], "string");
    if (title) this.#titles.set(item.id, title);
  }

  #refused(code, message) {
    const query = code === "bad_query" || code === "query_too_slow" || code === "bad_message";
    this.filters.refuse(query ? `This filter is not accepted: ${message}` : `The live result has ended: ${message}`);
    this.#draw();
  }

  #draw() {
    const live = this.#live;
    if (!live) return;
    const resource = this.description.name;
    const items = this.#deletions.any ? live.items.filter((item) => !this.#deletions.has(resource, item.id)) : live.items;
    const { size, limit } = this.#query;
    const pages = size ? Math.max(1, Math.ceil(items.length / size)) : 1;
    const page = Math.min(this.#query.page, pages);
    const first = size ? (page - 1) * size : 0;
    this.grid.setRows(size ? items.slice(first, first + size) : items, first, items.length);
    const there = live.state !== "connecting";
    const count = there ? `${countText(items.length)}${live.complete ? "" : "+"}` : "";
    if (this.count.textContent !== count) this.count.textContent = count;
    const note = live.error ? "" : !there ? SHOWN.connecting : items.length ? "" : this.#query.where.length || this.#query.words ? "Nothing matches." : "Nothing here yet.";
    if (this.note.textContent !== note) this.note.textContent = note;
    this.note.hidden = !note;
    this.element.dataset.state = live.state;
    this.#drawPages({ page, pages, first, shown: size ? Math.min(size, items.length - first) : items.length, total: items.length, complete: live.complete || !there, limit });
  }

  #drawPages(now) {
    const key = JSON.stringify([now, this.#query.size]);
    if (this.foot.dataset.key === key) return;
    this.foot.dataset.key = key;
    const { page, pages, first, shown, total, complete, limit } = now;
    const go = (label, to, face) => h("button.quiet", { type: "button", "aria-label": label, disabled: to < 1 || to > pages, on: { click: () => this.#ask(this.#query.with({ page: to })) } }, face);
    const focused = this.foot.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    fill(this.foot,
      h("span", {}, shown ? `${countText(first + 1)}–${countText(first + shown)} of ${countText(total)}` : "", complete ? "" : ` first of ${this.#query.order(this.description).join(", ")}`),
      !complete && limit < MOST ? h("button.quiet", { type: "button", on: { click: () => this.#ask(this.#query.with({ limit: MOST })) } }, `Load up to ${countText(MOST)}`) : null,
      !complete && limit === MOST ? h("span", {}, "There is more: narrow the filter to see it.") : null,
      limit > LIMIT && complete && total <= LIMIT ? h("button.quiet", { type: "button", on: { click: () => this.#ask(this.#query.with({ limit: LIMIT })) } }, `Load ${countText(LIMIT)}`) : null,
      h("span.space"),
      pages > 1 ? [go("Previous page", page - 1, "‹"), h("span", {}, `${countText(page)} / ${countText(pages)}`), go("Next page", page + 1, "›")] : null,
      h("label", {}, "Rows ", h("select", { "aria-label": "Rows on a page", on: { change: ({ target }) => this.#ask(this.#query.with({ size: Number(target.value) })) } },
        PAGE_SIZES.map((size) => h("option", { value: String(size), selected: size === this.#query.size }, size ? countText(size) : "All")))));
    if (focused) this.foot.querySelector(`[aria-label="${focused}"]`)?.focus();
  }

  #sort({ name, more }) {
    const order = this.#query.order(this.description);
    const present = order.find((term) => term.replace(/^-/, "") === name);
    const term = present === name ? `-${name}` : name;
    const others = more ? order.filter((one) => one.replace(/^-/, "") !== name) : [];
    this.#ask(this.#query.with({ sort: more && present === undefined ? [...others, term] : [term, ...others] }));
  }

  #sortMenu() {
    return menu(["Sort"], (panel, close) => {
      const order = this.#query.order(this.description);
      const choose = (term) => {
        close();
        this.#ask(this.#query.with({ sort: [term] }));
      };
      return h("div.choices", {}, this.description.columns.filter((field) => field.sortable).map((field) => h("div.choice", {},
        h("span", {}, field.label),
        [[field.name, "↑", "ascending"], [`-${field.name}`, "↓", "descending"]].map(([term, face, way]) =>
          h("button.quiet", { type: "button", "aria-pressed": String(order[0] === term), "aria-label": `${field.label}, ${way}`, on: { click: () => choose(term) } }, face)))));
    }, { label: "Sort by", class: "quiet" });
  }

  #columnMenu() {
    return menu(["Columns"], () => {
      const shown = new Set(this.#query.shown(this.description));
      const toggle = (name, on) => {
        if (on) shown.add(name);
        else shown.delete(name);
        if (shown.size) this.#ask(this.#query.with({ page: this.#query.page, columns: this.description.columns.map((field) => field.name).filter((one) => shown.has(one)) }));
      };
      return h("div.choices", {}, this.description.columns.map((field) => h("label.choice.check", {},
        h("input", { type: "checkbox", checked: shown.has(field.name), on: { change: ({ target }) => toggle(field.name, target.checked) } }), field.label)));
    }, { label: "Columns", class: "quiet" });
  }

  #ask(query) {
    this.#tell("query", query);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** The first sentence of a class's description, without its marks of code. */
const sentenceOf = (text) => (/^[^]*?\.(?=\s|$)/.exec(text)?.[0] ?? text).replaceAll(/\s+/g, " ").replaceAll("`", "");

/** `posts` as a heading. */
export function labelText(description) {
  const text = description.name.replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
}
