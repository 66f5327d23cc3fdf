// A table that stays quick with ten thousand rows: only the rows in sight are elements.
import { fill, h } from "../dom.js";
import { cellText } from "./values.js";

/** Rows beyond the edges of sight, so that a quick scroll shows no gaps. */
const OVERSCAN = 8;
/** How long a row that left stays to be seen leaving. The style's animation takes as long. */
const LEAVING_MS = 900;
/** A mark that could not be shown by then is of no use: its row was not in sight. */
const MARK_MS = 1_500;
const MOST_LEAVING = 40;
/** By kind: the least width in rem, and the share of what is left. */
const WIDTHS = {
  string: [9, 2], text: [12, 3], enum: [7, 0.7], boolean: [5, 0.5], integer: [5.5, 0.6], number: [5.5, 0.6], decimal: [5.5, 0.6],
  datetime: [8.5, 0.8], id: [8, 1], values: [9, 1.3], bytes: [8, 1], list: [8, 1], object: [8, 1], group: [8, 1],
};
/** What a document is called by gets more. */
const TITLE_WIDTH = [15, 3.5];
const NUMERIC = new Set(["integer", "number", "decimal"]);

/**
 * Fires `open` (detail: id), `delete` (detail: id) and `sort` (detail: {name, more}).
 *
 * @param label What a screen reader calls it.
 * @param show Gives a text for a cell in place of the value's own, or null: `show(field, value)`.
 */
export class Grid extends EventTarget {
  #fields = [];
  #order = [];
  #rows = [];
  #shown = [];
  #leaving = new Map();
  #marks = new Map();
  /** @type {Map<string, {element: any, cells: any[], document: any, index: number, columns: number}>} */
  #drawn = new Map();
  #spare = [];
  #columns = 0;
  #active = null;
  #first = 0;
  #turn = 0;
  #pending = 0;
  #rowHeight = 34;
  #show;

  constructor(label, show) {
    super();
    this.#show = show;
    this.head = h("div.grid-row.grid-head", { role: "row", "aria-rowindex": "1" });
    this.body = h("div.grid-body", { role: "rowgroup" });
    this.element = h("div.grid", { role: "grid", tabindex: "0", "aria-label": label, on: {
      scroll: () => this.#schedule(),
      keydown: (event) => this.#pressed(event),
      click: (event) => this.#clicked(event),
    } }, h("div.grid-heads", { role: "rowgroup" }, this.head), this.body);
    this.#observer.observe(this.element);
  }

  #observer = new ResizeObserver(() => {
    // On a narrow screen the style makes rows of two lines.
    const height = Number.parseFloat(getComputedStyle(this.element).getPropertyValue("--row"));
    if (height && height !== this.#rowHeight) {
      this.#rowHeight = height;
      for (const row of this.#drawn.values()) row.index = -1;
    }
    this.#schedule();
  });

  close() {
    this.#observer.disconnect();
    cancelAnimationFrame(this.#pending);
  }

  /** Show these fields, in the order of `order` (`-created_at`). */
  setFields(fields, order) {
    this.#fields = fields;
    this.#order = order;
    this.#columns += 1;
    const widths = fields.map((field) => (field.title ? TITLE_WIDTH : WIDTHS[field.kind]));
    this.element.style.setProperty("--columns", widths.map(([least, share]) => `minmax(${least}rem, ${share}fr)`).join(" "));
    this.element.style.setProperty("--width", `${widths.reduce((sum, [least]) => sum + least, 1.1)}rem`);
    this.element.setAttribute("aria-colcount", String(fields.length));
    fill(this.head, fields.map((field) => this.#headOf(field)));
    this.#schedule();
  }

  #headOf(field) {
    const place = this.#order.findIndex((term) => term.replace(/^-/, "") === field.name);
    const down = place >= 0 && this.#order[place].startsWith("-");
    const sorted = place === 0 ? (down ? "descending" : "ascending") : place > 0 ? "other" : field.sortable ? "none" : null;
    return h("div.grid-cell", { role: "columnheader", "aria-sort": sorted, class: NUMERIC.has(field.kind) ? "number" : "", title: field.description || field.label },
      field.sortable
        ? h("button", { type: "button", tabindex: "-1", on: { click: (event) => this.#tell("sort", { name: field.name, more: event.shiftKey }) } },
          h("span.label", {}, field.label), h("span.arrow", { "aria-hidden": "true" }, place < 0 ? "" : down ? "↓" : "↑"))
        : field.label);
  }

  /** The rows from now on, of which the first has the number `first` (from 0) in the whole result. */
  setRows(rows, first = 0, total = rows.length) {
    this.#rows = rows;
    this.#first = first;
    this.element.setAttribute("aria-rowcount", String(total + 1));
    this.#schedule();
  }

  /** Show that a document was created, entered or changed. `changed` are the fields, where known. */
  mark(id, op, changed = []) {
    this.#leaving.delete(id);
    this.#marks.set(id, { op, changed, until: performance.now() + MARK_MS });
    this.#schedule();
  }

  /** Show a row that is no longer among the rows leaving from where it was. */
  leave(id) {
    const row = this.#drawn.get(id);
    if (!row || this.#leaving.size >= MOST_LEAVING) return;
    this.#leaving.set(id, { document: row.document, index: row.index, until: performance.now() + LEAVING_MS });
    setTimeout(() => this.#schedule(), LEAVING_MS + 20);
    this.#schedule();
  }

  /** Draw the cells again: what `show` gives has changed. */
  redraw() {
    this.#columns += 1;
    this.#schedule();
  }

  #schedule() {
    this.#pending ||= requestAnimationFrame(() => {
      this.#pending = 0;
      this.#draw();
    });
  }

  #draw() {
    const now = performance.now();
    this.#shown = this.#rows;
    if (this.#leaving.size) {
      const there = new Set(this.#rows.map((row) => row.id));
      this.#shown = [...this.#rows];
      for (const [id, ghost] of [...this.#leaving].sort(([, one], [, other]) => one.index - other.index)) {
        // The event comes before the result without the row.
        if (ghost.until <= now) this.#leaving.delete(id);
        else if (!there.has(id)) this.#shown.splice(Math.min(ghost.index, this.#shown.length), 0, ghost.document);
      }
    }
    const height = this.#rowHeight;
    this.body.style.height = `${this.#shown.length * height}px`;
    const top = this.element.scrollTop;
    const from = Math.max(0, Math.floor(top / height) - OVERSCAN);
    const to = Math.min(this.#shown.length, Math.ceil((top + this.element.clientHeight) / height) + OVERSCAN);
    const wanted = new Set();
    for (let index = from; index < to; index += 1) wanted.add(this.#shown[index].id);
    for (const [id, row] of this.#drawn) {
      if (wanted.has(id)) continue;
      row.element.remove();
      this.#drawn.delete(id);
      if (this.#spare.length < 100) this.#spare.push(row);
    }
    for (let index = from; index < to; index += 1) this.#place(this.#shown[index], index, height);
    for (const [id, mark] of this.#marks) if (mark.until <= now) this.#marks.delete(id);
    this.#point();
  }

  #place(document, index, height) {
    const { id } = document;
    let row = this.#drawn.get(id);
    if (!row) {
      row = this.#spare.pop() ?? { element: h("div.grid-row", { role: "row" }), cells: [], document: null, index: -1, columns: -1 };
      row.element.id = `row-${id}`;
      row.element.dataset.id = id;
      delete row.element.dataset.flash;
      row.document = null;
      row.index = -1;
      this.#drawn.set(id, row);
      this.body.append(row.element);
    }
    if (row.index !== index) {
      row.index = index;
      row.element.style.transform = `translateY(${index * height}px)`;
      row.element.setAttribute("aria-rowindex", String(this.#first + index + 2));
    }
    if (row.columns !== this.#columns) this.#layOut(row);
    if (row.document !== document) {
      this.#fields.forEach((field, place) => this.#write(row.cells[place], field, document[field.name]));
      row.document = document;
    }
    const leaving = this.#leaving.has(id);
    if (leaving !== row.element.classList.contains("leaving")) row.element.classList.toggle("leaving", leaving);
    const mark = this.#marks.get(id);
    if (mark) this.#flash(row, mark);
  }

  #layOut(row) {
    row.cells = this.#fields.map((field) => h("div.grid-cell", { role: "gridcell", class: NUMERIC.has(field.kind) ? "number" : "", dataset: { kind: field.kind, label: field.label } }));
    row.element.replaceChildren(...row.cells);
    row.columns = this.#columns;
    row.document = null;
  }

  #write(cell, field, value) {
    const text = this.#show(field, value) ?? cellText(value, field.kind);
    if (field.kind === "enum" && text) {
      // A chip, coloured by what the word commonly means; any other word is plain.
      if (cell.firstChild?.textContent !== text || !cell.firstChild.dataset) fill(cell, h("span.chip", { dataset: { value: text } }, text));
    } else if (cell.textContent !== text) {
      cell.textContent = text;
    }
  }

  #flash(row, { op, changed }) {
    // Two equal animations in turn: another name starts it anew without a forced layout.
    this.#turn = 1 - this.#turn;
    row.element.dataset.flash = `${op}-${this.#turn}`;
    this.#fields.forEach((field, place) => {
      if (changed.includes(field.name)) row.cells[place].dataset.changed = String(this.#turn);
      else delete row.cells[place].dataset.changed;
    });
    this.#marks.delete(row.document.id);
  }

  #point() {
    const row = this.#active === null ? null : this.#drawn.get(this.#active);
    for (const other of this.body.querySelectorAll(".active")) if (other !== row?.element) other.classList.remove("active");
    row?.element.classList.add("active");
    if (row) this.element.setAttribute("aria-activedescendant", row.element.id);
    else this.element.removeAttribute("aria-activedescendant");
  }

  #clicked(event) {
    const row = event.target.closest?.(".grid-body .grid-row");
    if (!row || row.classList.contains("leaving") || getSelection()?.type === "Range") return;
    this.#active = row.dataset.id;
    this.#point();
    this.#tell("open", this.#active);
  }

  #pressed(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.#rowHeight) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps && this.#shown.length) {
      const at = this.#shown.findIndex((row) => row.id === this.#active);
      const next = at < 0 ? 0 : Math.min(Math.max(at + steps[event.key], 0), this.#shown.length - 1);
      this.#active = this.#shown[next].id;
      this.#reveal(next);
    } else if (event.key === "Enter" && this.#active) {
      this.#tell("open", this.#active);
    } else if (event.key === "Delete" && this.#active) {
      this.#tell("delete", this.#active);
    } else {
      return;
    }
    event.preventDefault();
  }

  #reveal(index) {
    const top = index * this.#rowHeight;
    // The heads stand over the first row's height of what is in sight.
    const sight = this.element.clientHeight - this.head.offsetHeight;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + this.#rowHeight > this.element.scrollTop + sight) this.element.scrollTop = top + this.#rowHeight - sight;
    this.#draw();
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
