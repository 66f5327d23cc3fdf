// A form made from a JSON Schema, with the server's errors at their fields.
import { fill, h } from "../dom.js";
import { inputOf, read } from "./field.js";

/** The inputs of a form. `suggest(field)` may give a function that fills a list of suggestions. */
export class Form {
  #inputs;

  constructor(fields, values, suggest = () => null) {
    this.#inputs = fields.map((field) => inputOf(field, values[field.name] ?? (values.id ? undefined : field.initial), suggest(field)));
    this.problem = h("p.problem.banner", { role: "alert", hidden: true });
    this.element = h("div.form", {}, this.problem, this.#inputs.map((input) => input.element));
  }

  get changed() {
    return this.#inputs.some((input) => input.changed);
  }

  /** The values of the fields, or of those that were changed. Null when one of them cannot be read; it says so. */
  values({ changedOnly = false } = {}) {
    this.clear();
    try {
      return read(this.#inputs, { changedOnly });
    } catch (error) {
      if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error;
      error.input.refuse([[[], error instanceof RangeError ? "This is not a time." : "This is not JSON."]])?.focus();
      return null;
    }
  }

  clear() {
    this.problem.hidden = true;
    for (const input of this.#inputs) input.refuse([]);
  }

  focus() {
    this.#inputs[0]?.focusable.focus();
  }

  /** Show a problem's faults at the fields that they name, and the rest above them. */
  refuse(text, errors = []) {
    this.clear();
    const known = (loc) => loc[0] === "body" && this.#inputs.some((one) => one.name === loc[1]);
    const elsewhere = errors.filter(({ loc }) => !known(loc)).map(({ loc, msg }) => [...loc.slice(1), msg].join(": "));
    let first = null;
    for (const input of this.#inputs) {
      const faults = errors.filter(({ loc }) => known(loc) && loc[1] === input.name).map(({ loc, msg }) => [loc.slice(2), msg]);
      const found = input.refuse(faults);
      first ??= found;
    }
    fill(this.problem, first && !elsewhere.length ? "Some fields are not accepted; see below." : [text, elsewhere.length ? ` ${elsewhere.join("; ")}` : ""]);
    this.problem.hidden = false;
    (first ?? this.problem).scrollIntoView({ block: "center" });
    first?.focus();
  }
}
