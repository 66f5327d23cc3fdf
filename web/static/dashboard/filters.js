// The line of conditions over a table: words to look for, a chip for each condition, and a form to add or change one.
import { fill, h, newId } from "../dom.js";
import { menu } from "./menu.js";
import { choiceText } from "./field.js";
import { operatorText, operatorsOf, subjectOf, takesValue } from "./query.js";

const INPUTS = { integer: "number", number: "number", decimal: "text", datetime: "datetime-local" };
/** Words are asked for when the person pauses, and not at each letter. */
const PAUSE_MS = 300;

/** Fires `change` (detail: {where?, words?}). */
export class Filters extends EventTarget {
  #description;
  #query;
  #pause;

  constructor(description, query) {
    super();
    this.#description = description;
    this.chips = h("span.chips", { role: "list", "aria-label": "Conditions" });
    this.words = h("input", { type: "search", value: query.words, placeholder: "Search", "aria-label": `Search ${description.searchable.join(", ")}`,
      maxlength: "120", autocomplete: "off", on: { input: () => this.#typed() } });
    this.problem = h("p.problem", { role: "alert", hidden: true });
    this.element = h("div.filters", { role: "group", "aria-label": "Filter" },
      description.searchable.length ? h("span.search", {}, this.words) : null,
      this.chips,
      menu(["Filter"], (_, close) => this.#form(null, close), { label: "Add a condition", class: "quiet plus" }));
    this.show(query);
  }

  show(query) {
    this.#query = query;
    if (document.activeElement !== this.words) this.words.value = query.words;
    fill(this.chips, query.where.map((condition, index) => this.#chip(condition, index)));
  }

  /** Say what is wrong with the conditions; empty: nothing. */
  refuse(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
  }

  #typed() {
    clearTimeout(this.#pause);
    this.#pause = setTimeout(() => this.#change({ words: this.words.value.trim() }), PAUSE_MS);
  }

  #change(parts) {
    this.dispatchEvent(new CustomEvent("change", { detail: parts }));
  }

  #chip(condition, index) {
    const [name, operator, value] = condition;
    const field = this.#description.columns.find((one) => one.name === name);
    const text = [field?.label ?? name, " ", operatorText(operator), " ", takesValue(operator) ? h("strong", {}, shortened(value || choiceText(value))) : null];
    return h("span.condition", { role: "listitem" },
      menu(text, (_, close) => this.#form(index, close), { label: "Change this condition", class: "plain" }),
      h("button.plain.remove", { type: "button", "aria-label": `Remove: ${field?.label ?? name} ${operatorText(operator)} ${value}`,
        on: { click: () => this.#change({ where: this.#query.where.filter((_, at) => at !== index) }) } }, "×"));
  }

  #form(index, close) {
    const fields = this.#description.columns;
    const [name, operator, value] = this.#query.where[index] ?? [(fields.find((field) => field.kind === "enum") ?? fields[0]).name, null, ""];
    const field = h("select", { id: newId("field") }, fields.map((one) => h("option", { value: one.name, selected: one.name === name }, one.label)));
    const operation = h("select", { id: newId("operator") });
    const valuePlace = h("div.field");
    const chosen = () => fields.find((one) => one.name === field.value);
    const offer = (kept) => {
      fill(operation, operatorsOf(chosen()).map((one) => h("option", { value: one, selected: one === kept }, operatorText(one))));
    };
    const takeValue = (kept) => {
      if (!takesValue(operation.value)) fill(valuePlace);
      else {
        const id = newId("value");
        fill(valuePlace, h("label", { for: id }, "Value"), input(subjectOf(chosen()), kept, id));
      }
    };
    offer(operator);
    takeValue(value);
    field.addEventListener("change", () => {
      offer(null);
      takeValue("");
    });
    operation.addEventListener("change", () => takeValue(valuePlace.querySelector("input, select")?.value ?? ""));
    const apply = (event) => {
      event.preventDefault();
      const text = valuePlace.querySelector("input, select")?.value ?? "";
      const condition = [field.value, operation.value, text];
      close();
      this.#change({ where: index === null ? [...this.#query.where, condition] : this.#query.where.map((one, at) => (at === index ? condition : one)) });
    };
    return h("form.condition-form", { on: { submit: apply } },
      h("div.field", {}, h("label", { for: field.id }, "Field"), field),
      h("div.field", {}, h("label", { for: operation.id }, "Condition"), operation),
      valuePlace,
      h("button.primary", { type: "submit" }, index === null ? "Add condition" : "Change condition"));
  }
}

function input(field, value, id) {
  if (field.kind === "enum" || field.kind === "boolean") {
    const choices = field.kind === "boolean" ? [true, false] : field.choices;
    return h("select", { id }, choices.map((one) => h("option", { value: String(one), selected: String(one) === value }, choiceText(one))));
  }
  const type = INPUTS[field.kind] ?? "text";
  return h("input", { id, type, value, step: type === "number" ? "any" : type === "datetime-local" ? "1" : null, required: true, maxlength: "500", autocomplete: "off" });
}

const shortened = (text) => (text.length > 24 ? `${text.slice(0, 22)}…` : text);
