// The inputs of a form: each has its element, its present value, and a place for what is wrong with it.
import { fill, h, newId } from "../dom.js";
import { fieldsOf } from "./schema.js";

/** A value that is not there at all, which is another thing than null or an empty text. */
export const ABSENT = Symbol("absent");

const local = (value) => {
  const time = new Date(value);
  if (Number.isNaN(time.getTime())) return "";
  return new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, -1);
};

/** What a person wrote, as the server takes it. What cannot be read goes as it is: the server says what is wrong. */
export function valueOf({ kind, choices }, text) {
  if (kind === "boolean") return { true: true, false: false }[text] ?? text;
  if (kind === "enum") return choices.find((one) => String(one) === text) ?? text;
  if (kind === "integer" || kind === "number") {
    const number = Number(text);
    const exact = kind === "number" ? Number.isFinite(number) : !Number.isInteger(number) || Number.isSafeInteger(number);
    return text.trim() === "" || Number.isNaN(number) || !exact ? text : number;
  }
  return text;
}

/** The input of a single value, or of what is written as a text. */
export class FieldInput {
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
    const about = [field.description, field.kind === "list" || field.kind === "object" ? "Written as JSON." : ""].filter(Boolean).join(" ");
    const hint = about ? h("p.hint", { id: `${id}-hint` }, about) : null;
    const described = [hint?.id, this.problem.id].filter(Boolean).join(" ");
    this.#input = this.#make(id, value, { "aria-describedby": described, name: field.name });
    const list = suggestions && this.#input.matches("input") ? h("datalist", { id: `${id}-list` }) : null;
    if (list) {
      this.#input.setAttribute("list", list.id);
      suggestions(list);
    }
    const label = [field.label, field.required ? h("span.needed", { "aria-hidden": "true" }, " *") : null];
    const check = this.#input.type === "checkbox";
    this.element = check
      ? h("div.field.check", {}, h("label", {}, this.#input, ...label), hint, this.problem)
      : h("div.field", {}, h("label", { for: id }, label), this.#input, list, hint, this.problem);
    if (field.required && !check) this.#input.setAttribute("aria-required", "true");
    this.#first = this.#raw();
  }

  #make(id, value, attributes) {
    const { kind, schema, choices, item, nullable, required } = this.#field;
    const there = value !== undefined && value !== null;
    if (kind === "boolean" && !nullable) return h("input", { ...attributes, id, type: "checkbox", checked: value === true });
    if (kind === "enum" || kind === "boolean") {
      const known = kind === "boolean" ? [true, false] : choices;
      const offered = known.includes(value) || !there ? known : [...known, value];
      const empty = !required || nullable || !there ? [h("option", { value: "" }, "–")] : [];
      // By their places: a choice may be an empty text.
      return h("select", { ...attributes, id }, empty, offered.map((one, place) => h("option", { value: String(place), selected: one === value }, choiceText(one))));
    }
    if (kind === "values") {
      const text = Array.isArray(value) ? value.join("\n") : "";
      return h("textarea", { ...attributes, id, rows: "3", value: text, placeholder: item.choices.length ? `one on each line: ${item.choices.map(choiceText).join(", ")}` : "one on each line" });
    }
    if (kind === "text" || kind === "bytes" || kind === "list" || kind === "object") {
      const written = kind === "text" || kind === "bytes";
      const text = written ? (value ?? "") : there ? JSON.stringify(value, null, 2) : "";
      return h("textarea", { ...attributes, id, rows: kind === "text" && schema.maxLength ? "7" : "3", value: text, class: kind === "text" ? "" : "code",
        spellcheck: kind === "text" ? null : "false", placeholder: { list: "[ … ]", object: schema.anyOf ? null : "{ … }", bytes: "base64" }[kind] ?? null });
    }
    if (kind === "datetime") return h("input", { ...attributes, id, type: "datetime-local", step: "0.001", value: there ? local(value) : "" });
    const number = kind === "integer" || kind === "number";
    return h("input", { ...attributes, id, type: "text", inputmode: number ? "decimal" : null, autocomplete: "off", value: there ? String(value) : "",
      class: kind === "id" ? "code" : "", placeholder: schema.examples?.[0] ?? null });
  }

  #raw() {
    return this.#input.type === "checkbox" ? this.#input.checked : this.#input.value;
  }

  /** Whether the person changed it. */
  get changed() {
    return this.#raw() !== this.#first || this.#unreadable;
  }

  /** Whether a part of a time is missing: the browser then gives an empty text for it, and a fault. */
  get #unreadable() {
    return this.#input.validity.badInput;
  }

  get focusable() {
    return this.#input;
  }

  /** The value for the server. Throws SyntaxError when what should be JSON is none, RangeError for no time. */
  get value() {
    if (this.#unreadable) throw new RangeError("not a whole time");
    if (!this.changed && this.#given !== undefined) return this.#given;
    const raw = this.#raw();
    // An untouched empty text is left to the server's default.
    if (!this.changed && raw === "" && !this.#field.nullable) return ABSENT;
    const { kind, item, nullable, choices } = this.#field;
    if (raw === true || raw === false) return raw;
    if (kind === "values") return raw.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => valueOf(item, line));
    if (raw === "" && kind !== "string" && kind !== "text") return nullable ? null : ABSENT;
    if (kind === "boolean") return raw === "0";
    if (kind === "enum") return choices[Number(raw)] ?? this.#given;
    if (kind === "datetime") return new Date(raw).toISOString();
    if (kind === "list" || kind === "object") return JSON.parse(raw);
    return valueOf(this.#field, raw);
  }

  /** Say what is wrong: `[path within the field, message]` each. */
  refuse(faults) {
    fill(this.problem, faults.map(([path, text]) => h("span", {}, path.length ? `${path.join(".")}: ${text}` : text)));
    this.problem.hidden = !faults.length;
    if (faults.length) this.#input.setAttribute("aria-invalid", "true");
    else this.#input.removeAttribute("aria-invalid");
    return faults.length ? this.#input : null;
  }
}

/** A nested model: its own fields in a frame. One that may be absent has a box to tick; only then are there fields. */
export class GroupInput {
  #field;
  #given;
  #box = null;
  #inputs = null;
  #place = h("div.form");

  constructor(field, value) {
    this.#field = field;
    this.#given = value;
    this.name = field.name;
    const id = newId("group");
    this.problem = h("p.problem", { id: `${id}-problem`, hidden: true });
    const there = (value !== undefined && value !== null) || !field.nullable;
    if (field.nullable) {
      this.#box = h("input", { type: "checkbox", name: field.name, checked: there, "aria-describedby": this.problem.id,
        on: { change: () => this.#show(this.#box.checked) } });
    }
    const label = [field.label, field.required ? h("span.needed", { "aria-hidden": "true" }, " *") : null];
    this.element = h("fieldset.group", {}, h("legend", {}, this.#box ? h("label.check", {}, this.#box, ...label) : label),
      field.description ? h("p.hint", {}, field.description) : null, this.#place, this.problem);
    this.#show(there);
  }

  #show(there) {
    this.#place.hidden = !there;
    if (!there || this.#inputs) return;
    const given = this.#given ?? null;
    this.#inputs = fieldsOf(this.#field.schema, this.#field.definitions).map((field) => inputOf(field, given ? given[field.name] : field.initial));
    fill(this.#place, this.#inputs.map((input) => input.element));
  }

  get #there() {
    return this.#box ? this.#box.checked : true;
  }

  get changed() {
    const moved = this.#box && this.#box.checked !== (this.#given !== undefined && this.#given !== null);
    return moved || (this.#there && this.#inputs.some((input) => input.changed));
  }

  get focusable() {
    return this.#box ?? this.#inputs[0]?.focusable;
  }

  get value() {
    if (!this.changed && this.#given !== undefined) return this.#given;
    if (!this.#there) return null;
    // Members that no form shows stay as they are.
    const others = Object.entries(this.#given ?? {}).filter(([name]) => !this.#inputs.some((input) => input.name === name));
    return { ...Object.fromEntries(others), ...read(this.#inputs) };
  }

  refuse(faults) {
    const own = faults.filter(([path]) => !this.#inputs || !this.#inputs.some((input) => input.name === path[0]));
    fill(this.problem, own.map(([path, text]) => h("span", {}, path.length ? `${path.join(".")}: ${text}` : text)));
    this.problem.hidden = !own.length;
    let first = own.length ? this.focusable : null;
    for (const input of this.#inputs ?? []) {
      const found = input.refuse(faults.filter(([path]) => path[0] === input.name).map(([[, ...deeper], text]) => [deeper, text]));
      first ??= found;
    }
    return first;
  }
}

/** Whether a line each keeps these items as they are. */
const fitLines = (items) => items.every((one) => typeof one !== "object" && String(one) !== "" && !/^\s|\s$|[\r\n]/.test(String(one)));

/** The input for a field; `suggestions` fills a list of what may be written there. What is stored may be anything. */
export function inputOf(field, value, suggestions = null) {
  const absent = value === undefined || value === null;
  if (field.kind === "group") {
    if (absent || (typeof value === "object" && !Array.isArray(value))) return new GroupInput(field, value);
    return new FieldInput({ ...field, kind: "object" }, value);
  }
  if (field.kind === "values" && !absent && !(Array.isArray(value) && fitLines(value))) return new FieldInput({ ...field, kind: "list" }, value);
  return new FieldInput(field, value, suggestions);
}

/**
 * The values of inputs, without what is left to the server. Throws what an input throws, with the `input`.
 * @returns {Record<string, any>}
 */
export function read(inputs, { changedOnly = false } = {}) {
  const values = {};
  for (const input of inputs) {
    if (changedOnly && !input.changed) continue;
    let value;
    try {
      value = input.value;
    } catch (error) {
      error.input ??= input;
      throw error;
    }
    if (value !== ABSENT) values[input.name] = value;
    else if (changedOnly) values[input.name] = null;
  }
  return values;
}

/** A choice for people. */
export const choiceText = (choice) => ({ true: "yes", false: "no", "": "(empty)" }[String(choice)] ?? String(choice));
