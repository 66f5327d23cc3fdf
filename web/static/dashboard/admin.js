// What the server does: its workers and its connections, read anew every two seconds, and a way to close some.
import { fill, h } from "../dom.js";
import { ask, words } from "./api.js";
import { toast } from "./toasts.js";
import { cellText, countText } from "./values.js";

const EACH_MS = 2_000;
/** Above this the relay is late, and people would see it. */
const LATE_SECONDS = 2;
const UNITS = ["B", "KiB", "MiB", "GiB"];
const FEEDS = { relayed: "shared log", direct: "change stream, as Redis is away", local: "change stream" };

export class AdminPage {
  #client;
  #timer = null;
  #closed = false;
  /** The sum of deliveries at the last reading, for their rate. */
  #before = null;

  constructor(client) {
    this.#client = client;
    this.problem = h("p.problem", { role: "alert", hidden: true });
    this.tiles = h("dl.tiles");
    this.workers = h("tbody");
    this.connections = h("tbody");
    this.total = h("span.count");
    this.silent = h("p.soft", { hidden: true });
    this.element = h("section.admin", { "aria-labelledby": "page-title" },
      h("header.page-head", {}, h("h1", { id: "page-title" }, "Operations"), h("p.page-about", {}, "All workers of this database, every two seconds.")),
      this.problem, this.tiles,
      h("h2", {}, "Workers"),
      table("Workers", ["Worker", "State", "Feed", "Lag", "Connections", "Views", "Deliveries", "Slow consumers", "Waiting", "Since"], this.workers),
      h("h2", {}, "Connections ", this.total), this.silent,
      table("Connections", ["User", "Address", "By", "Subscriptions", "Waiting", "Sent", "Since", ""], this.connections));
    this.#read();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  async #read() {
    if (document.visibilityState === "visible") {
      try {
        const [workers, connections] = await Promise.all(["admin/workers", "admin/connections"].map((path) => ask(this.#client, "GET", path)));
        if (this.#closed) return;
        this.#draw(workers.content.items, connections.content);
        this.problem.hidden = true;
      } catch (error) {
        this.problem.textContent = words(error);
        this.problem.hidden = false;
      }
    }
    if (!this.#closed) this.#timer = setTimeout(() => this.#read(), EACH_MS);
  }

  #draw(workers, { items, total, silent }) {
    const sum = (name) => workers.reduce((known, worker) => known + worker[name], 0);
    const lag = Math.max(0, ...workers.map((worker) => worker.relay_lag_seconds));
    const now = { at: performance.now(), deliveries: sum("deliveries") };
    const seconds = this.#before ? (now.at - this.#before.at) / 1000 : 0;
    const rate = seconds ? Math.max(0, (now.deliveries - this.#before.deliveries) / seconds) : 0;
    this.#before = now;
    fill(this.tiles,
      tile("Workers", countText(workers.length)),
      tile("Connections", countText(total)),
      tile("Subscriptions", countText(sum("subscriptions"))),
      tile("Deliveries", `${rate < 10 ? rate.toFixed(1) : countText(Math.round(rate))}/s`),
      tile("Relay lag", lagText(lag), lag > LATE_SECONDS),
      tile("Slow consumers", countText(sum("slow_consumers"))),
      tile("Waiting", bytesText(sum("outbox_bytes"))));
    fill(this.workers, workers.map((worker) => row([
      [worker.host, h("span.soft", {}, ` · ${worker.pid}`)],
      h("span.chip", { dataset: { value: worker.draining ? "draft" : "active" } }, worker.draining ? "draining" : worker.relay ? "serves, relays" : "serves"),
      FEEDS[worker.feed] ?? worker.feed, lagText(worker.relay_lag_seconds), countText(worker.connections), countText(worker.views),
      countText(worker.deliveries), countText(worker.slow_consumers), bytesText(worker.outbox_bytes), cellText(worker.started_at, "datetime"),
    ])));
    this.total.textContent = countText(total);
    this.silent.textContent = `Did not answer in time, and left out: ${silent.join(", ")}`;
    this.silent.hidden = !silent.length;
    const kicking = this.connections.contains(document.activeElement) ? document.activeElement.dataset.connection : null;
    fill(this.connections, items.map((one) => row([
      one.user?.username ?? h("span.soft", {}, "anonymous"),
      h("code", {}, one.address), one.transport.replace("_", " "), countText(one.subscriptions), bytesText(one.outbox_bytes), bytesText(one.sent_bytes), cellText(one.opened_at, "datetime"),
      one.user ? h("button.quiet.danger", { type: "button", dataset: { connection: one.id }, "aria-label": `Disconnect ${one.user.username}`, on: { click: ({ target }) => this.#kick(one.user, target) } }, "Disconnect") : "",
    ])));
    if (kicking) this.connections.querySelector(`[data-connection="${CSS.escape(kicking)}"]`)?.focus();
  }

  async #kick(user, button) {
    button.disabled = true;
    try {
      const { content } = await ask(this.#client, "DELETE", "admin/connections", { query: { user: user.id } });
      toast(`${countText(content.closed)} ${content.closed === 1 ? "connection" : "connections"} of ${user.username} closed.`);
    } catch (error) {
      toast(words(error), { kind: "problem" });
    } finally {
      button.disabled = false;
    }
  }
}

function table(label, heads, body) {
  return h("div.scroll", { tabindex: "0", role: "group", "aria-label": label },
    h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => (head ? h("th", { scope: "col" }, head) : h("td"))))), body));
}

const row = (cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)));

function tile(name, value, late = false) {
  return h("div.tile", { class: late ? "late" : "" }, h("dt", {}, name), h("dd", {}, value));
}

function lagText(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

function bytesText(bytes) {
  const power = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, bytes)) / 10)));
  const amount = bytes / 1024 ** power;
  return `${power && amount < 10 ? amount.toFixed(1) : Math.round(amount)} ${UNITS[power]}`;
}
