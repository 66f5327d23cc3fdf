// Buttons with a panel that opens under them. The browser closes it on Escape and on a click elsewhere.
import { fill, h, newId } from "../dom.js";

/**
 * A button and its panel.
 *
 * @param {any[]} face What stands on the button.
 * @param {(panel: any, close: () => void) => any} content Called each time it opens; what it gives is put into the panel.
 * @param {{label: string, class?: string}} options `label` is the panel's name.
 */
export function menu(face, content, { label, class: name = "" }) {
  const panel = h("div.panel", { id: newId("panel"), popover: "auto", role: "group", "aria-label": label });
  const close = () => panel.hidePopover();
  const button = h("button", { type: "button", class: name, "aria-expanded": "false", "aria-controls": panel.id, "aria-haspopup": "true", popovertarget: panel.id }, face);
  const place = () => {
    const { left, bottom } = button.getBoundingClientRect();
    const room = document.documentElement.clientWidth - panel.offsetWidth - 8;
    panel.style.left = `${Math.max(8, Math.min(left, room))}px`;
    panel.style.top = `${bottom + 4}px`;
    panel.style.maxHeight = `${innerHeight - bottom - 16}px`;
  };
  panel.addEventListener("beforetoggle", (event) => {
    if (event.newState === "open") fill(panel, content(panel, close));
  });
  panel.addEventListener("toggle", (event) => {
    const open = event.newState === "open";
    button.setAttribute("aria-expanded", String(open));
    if (open) {
      place();
      panel.querySelector("[autofocus], input, select, button")?.focus();
    }
  });
  return h("span.menu", {}, button, panel);
}
