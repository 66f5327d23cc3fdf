// A form made from a JSON Schema, with the server's errors at their fields.
import { fill, h, newId } from "../dom.js";

/** A value that is not there at all, which is another thing than null or an empty text. */
const ABSENT = Symbol("absent");

const local = (value) => {
  const time = new Date(value);
  if (Number.isNaN(time.getTime())) return "";
  return new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, -1);
};

/** One field: its element, its present value, and a place for what is wrong with it. */
class FieldInput {
  #field;
  #input;
  #given;
  #first;

  constructor(field, value, suggestions) {
    this.#field = field;
    this.#given = value;
    const id = newId("input");
    this.name = field.name;
    this.problem = h("p.problem", { id: `${id}-problem`, hidden: true });
    const hint = field.description ? h("p.hint", { id: `${id}-hint` }, field.description) : null;
    const described = [hint?.id, this.problem.id].filter(Boolean).join(" ");
    this.#input = this.#make(id, value, { "aria-describedby": described, name: field.name, required: false });
    const list = suggestions ? h("datalist", { id: `${id}-list` }) : null;
    if (list) {
      this.#input.setAttribute("list", list.id);
      suggestions(list);
    }
    const label = [field.label, field.required ? h("span.needed", { "aria-hidden": "true" }, " *") : null];
    this.element = field.kind === "boolean"
      ? h("div.field.check", {}, h("label", {}, this.#input, ...label), hint, this.problem)
      : h("div.field", {}, h("label", { for: id }, label), this.#input, list, hint, this.problem);
    if (field.required && field.kind !== "boolean") this.#input.setAttribute("aria-required", "true");
    this.#first = this.#raw();
  }

  #make(id, value, attributes) {
    const { kind, schema, choices, nullable, required } = this.#field;
    const there = value !== undefined && value !== null;
    if (kind === "boolean") return h("input", { ...attributes, id, type: "checkbox", checked: value === true });
    if (kind === "enum") {
      const offered = choices.includes(value) || !there ? choices : [...choices, value];
      const empty = !required || nullable || !there ? [h("option", { value: "" }, "–")] : [];
      return h("select", { ...attributes, id }, empty, offered.map((one) => h("option", { value: String(one), selected: one === value }, String(one))));
    }
    if (kind === "texts") {
      const text = Array.isArray(value) ? value.join("\n") : "";
      return h("textarea", { ...attributes, id, rows: "3", value: text, placeholder: "one on each line" });
    }
    if (kind === "text" || kind === "list" || kind === "object") {
      const text = kind === "text" ? (value ?? "") : there ? JSON.stringify(value, null, 2) : "";
      return h("textarea", { ...attributes, id, rows: kind === "text" ? "7" : "4", value: text, class: kind === "text" ? "" : "code", spellcheck: kind === "text" ? null : "false" });
    }
    if (kind === "datetime") return h("input", { ...attributes, id, type: "datetime-local", step: "0.001", value: there ? local(value) : "" });
    const number = kind === "integer" || kind === "number";
    return h("input", { ...attributes, id, type: "text", inputmode: number ? "decimal" : null, autocomplete: "off", value: there ? String(value) : "",
      class: kind === "id" ? "code" : "", placeholder: schema.examples?.[0] ?? null });
  }

  #raw() {
    return this.#field.kind === "boolean" ? this.#input.checked : this.#input.value;
  }

  /** Whether the person changed it. */
  get changed() {
    return this.#raw() !== this.#first;
  }

  get focusable() {
    return this.#input;
  }

  /** The value for the server. Throws SyntaxError when what should be JSON is none. */
  get value() {
    if (!this.changed && this.#given !== undefined) return this.#given;
    const raw = this.#raw();
    const { kind, nullable, choices } = this.#field;
    if (kind === "boolean") return raw;
    if (kind === "texts") return raw.split("\n").map((line) => line.trim()).filter(Boolean);
    if (raw === "" && kind !== "string" && kind !== "text") return nullable ? null : ABSENT;
    if (kind === "enum") return choices.find((one) => String(one) === raw) ?? raw;
    if (kind === "integer" || kind === "number") return Number.isNaN(Number(raw)) ? raw : Number(raw);
    if (kind === "datetime") return new Date(raw).toISOString();
    if (kind === "list" || kind === "object") return JSON.parse(raw);
    return raw;
  }

  refuse(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
    if (text) this.#input.setAttribute("aria-invalid", "true");
    else this.#input.removeAttribute("aria-invalid");
  }
}

/** The inputs of a form. `suggest(field)` may give a function that fills a list of suggestions. */
export class Form {
  #inputs;

  constructor(fields, values, suggest = () => null) {
    this.#inputs = fields.map((field) => new FieldInput(field, values[field.name] ?? (values.id ? undefined : field.initial), suggest(field)));
    this.problem = h("p.problem.banner", { role: "alert", hidden: true });
    this.element = h("div.form", {}, this.problem, this.#inputs.map((input) => input.element));
  }

  get changed() {
    return this.#inputs.some((input) => input.changed);
  }

  /** The values of the fields, or of those that were changed. Null when one of them cannot be read; it says so. */
  values({ changedOnly = false } = {}) {
    const values = {};
    this.clear();
    for (const input of this.#inputs) {
      if (changedOnly && !input.changed) continue;
      try {
        const { value } = input;
        if (value !== ABSENT) {
          // An untouched empty text of a new document is left to the server's default.
          if (changedOnly || input.changed || (value !== "" && value !== undefined)) values[input.name] = value;
        } else if (changedOnly) {
          values[input.name] = null;
        }
      } catch (error) {
        if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error;
        input.refuse(error instanceof RangeError ? "This is not a time." : "This is not JSON.");
        input.focusable.focus();
        return null;
      }
    }
    return values;
  }

  clear() {
    this.problem.hidden = true;
    for (const input of this.#inputs) input.refuse("");
  }

  focus() {
    this.#inputs[0]?.focusable.focus();
  }

  /** Show a problem's faults at the fields that they name, and the rest above them. */
  refuse(text, errors = []) {
    const elsewhere = [];
    let first = null;
    for (const { loc, msg } of errors) {
      const [, name, ...deeper] = loc;
      const input = loc[0] === "body" ? this.#inputs.find((one) => one.name === name) : undefined;
      if (!input) elsewhere.push([...loc.slice(1), msg].join(": "));
      else {
        input.refuse(deeper.length ? `${deeper.join(".")}: ${msg}` : msg);
        first ??= input;
      }
    }
    fill(this.problem, first && !elsewhere.length ? "Some fields are not accepted; see below." : [text, elsewhere.length ? ` ${elsewhere.join("; ")}` : ""]);
    this.problem.hidden = false;
    (first?.focusable ?? this.problem).scrollIntoView({ block: "center" });
    first?.focusable.focus();
  }
}
