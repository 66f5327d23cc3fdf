// Short notices at the edge, each with at most one thing to do.
import { h } from "../dom.js";

const place = () => document.getElementById("toasts");

/**
 * @param {string} text
 * @param {{action?: string, act?: () => void, seconds?: number, kind?: "plain" | "problem"}} [options]
 * @returns {() => void} Takes it away; safe to call twice.
 */
export function toast(text, { action, act, seconds = 6, kind = "plain" } = {}) {
  const remove = () => {
    clearTimeout(timer);
    element.remove();
  };
  const element = h("div.toast", { class: kind, role: kind === "problem" ? "alert" : "status" }, h("span", {}, text),
    action ? h("button.plain", { type: "button", on: { click: () => {
      remove();
      act();
    } } }, action) : null,
    h("button.plain.close", { type: "button", "aria-label": "Dismiss", on: { click: () => remove() } }, "×"));
  const timer = setTimeout(remove, seconds * 1000);
  place().append(element);
  return remove;
}
