// Builds elements. Text only ever becomes a text node, so no value from the server can become markup or script.

/** What must be set as a property, because the attribute means only the first value. */
const PROPERTIES = new Set(["value", "checked", "selected", "disabled", "indeterminate", "open", "hidden"]);

/**
 * An element with attributes, listeners (`on: {click}`) and children.
 *
 * @param {string} tag Its name, with classes after dots: `button.primary`.
 * @param {Record<string, any>} [props] `null`, `undefined` and `false` leave an attribute out, `true` gives it no value.
 * @param {...(Node | string | number | null | undefined | false | Array<any>)} children
 * @returns {any} The element.
 */
export function h(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) {
    if (key === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (key === "class") {
      if (value) element.classList.add(...String(value).split(" ").filter(Boolean));
    } else if (key === "dataset") {
      Object.assign(element.dataset, value);
    } else if (PROPERTIES.has(key)) {
      if (value !== undefined) element[key] = value;
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, value === true ? "" : String(value));
    }
  }
  append(element, children);
  return element;
}

/** Append nodes and texts; `null`, `undefined` and `false` are nothing. */
export function append(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Put these children in place of all there are. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element; attributes only. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

let counter = 0;

/** An id that no other element of the page has, to tie labels and errors to fields. */
export function newId(prefix) {
  counter += 1;
  return `${prefix}-${counter}`;
}
