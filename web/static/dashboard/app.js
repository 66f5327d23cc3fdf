// The dashboard: who is signed in, which page is shown, and what all pages share.
import { Headwater } from "/client/headwater.js";
import { fill, h } from "../dom.js";
import { AdminPage } from "./admin.js";
import { ask, part, words } from "./api.js";
import { Deletions } from "./deletions.js";
import { Editor } from "./editor.js";
import { Log } from "./log.js";
import { Meters, STATES } from "./meters.js";
import { Query } from "./query.js";
import { References } from "./references.js";
import { Resources } from "./resources.js";
import { labelText, Results } from "./results.js";
import { describe } from "./schema.js";
import { Session, SessionEnded } from "./session.js";
import { signInPage } from "./sign-in.js";
import { chooseTheme } from "./theme-button.js";
import { toast } from "./toasts.js";

const session = new Session();
const main = document.getElementById("main");
const bar = document.getElementById("bar");
/** What a signed-in person, or a visitor, works with; null on the page to sign in. */
let desk = null;

/** Everything that belongs to one person's stay: the client, and the parts that are the same on all pages. */
class Desk {
  page = null;
  #descriptions = new Map();
  /** On a small screen the events would cover the table. */
  #logShown = !matchMedia("(max-width: 75rem)").matches;

  static async open() {
    const client = new Headwater(location.origin, { getToken: ({ refresh }) => session.token({ renew: refresh }) });
    try {
      const { content } = await ask(client, "GET", "schemas");
      return new Desk(client, content.items.filter((one) => one.live && one.may.includes("read")));
    } catch (error) {
      client.close();
      throw error;
    }
  }

  constructor(client, summaries) {
    this.client = client;
    this.summaries = summaries;
    this.admin = session.hasRole("admin");
    this.references = new References(client);
    this.deletions = new Deletions(client, (resource, id) => this.#results?.description.name === resource && this.#results.has(id));
    this.resources = new Resources(client, summaries, this.admin);
    this.meters = new Meters(client);
    this.log = new Log((resource, id) => this.#edit(resource, id));
    this.editor = new Editor(client, this.references);
    this.editor.addEventListener("delete", ({ detail }) => this.deletions.add(detail.description, detail));
    this.place = h("div.place");
    this.logSwitch = h("button.quiet", { type: "button", "aria-pressed": "true", title: "Show or hide the event log", on: { click: () => this.#toggleLog() } }, "Events");
    fill(main, this.resources.element, this.place, this.log.element, this.editor.element);
    fill(bar, this.meters.element, this.logSwitch, person());
    this.#arrange();
    client.on("state", (state) => this.log.note(STATES[state][0]));
    client.on("error", (trouble) => this.#refused(trouble));
  }

  /** The server sent this client away for good: the session has ended, or an admin closed its connections. */
  async #refused({ code, message }) {
    try {
      // A session that has ended is found out here, and leads to the page to sign in.
      await session.token({ renew: true });
    } catch (error) {
      if (error instanceof SessionEnded) return;
    }
    if (desk === this) toast(code === 4503 ? "Disconnected by an admin. What you see may be old." : `Disconnected: ${message}.`, { action: "Connect again", act: () => this.client.renew(), seconds: 86_400, kind: "problem" });
  }

  close() {
    this.page?.close();
    this.deletions.close();
    this.resources.close();
    this.meters.close();
    this.editor.close();
    this.client.close();
  }

  /** Show what the address says. */
  async show() {
    const [, name = "", text = ""] = location.hash.match(/^#\/([^?]*)\??(.*)$/) ?? [];
    const wanted = decodeURIComponent(name);
    if (wanted === "admin" && this.admin) {
      this.#turnTo(new AdminPage(this.client), "admin", "Operations");
      return;
    }
    const summary = this.summaries.find((one) => one.name === wanted) ?? this.summaries.find((one) => one.name === "posts") ?? this.summaries[0];
    if (!summary) {
      fill(this.place, h("p.result-note", {}, "There is nothing that you may read here."));
      return;
    }
    const query = Query.parse(text);
    if (this.#results?.description.name === summary.name) {
      this.#results.show(query);
      return;
    }
    const description = await this.#describe(summary.name);
    // The person may have gone on meanwhile.
    if (desk !== this || (wanted && !location.hash.startsWith(`#/${name}`))) return;
    const page = new Results({
      client: this.client, description, query, references: this.references, deletions: this.deletions,
      canCreate: session.signedIn && Boolean(description.create) && description.may.includes("create"),
    });
    page.addEventListener("query", ({ detail }) => {
      const parameters = detail.toString();
      location.hash = `#/${part(description.name)}${parameters ? `?${parameters}` : ""}`;
    });
    page.addEventListener("open", ({ detail }) => this.#edit(description.name, detail));
    page.addEventListener("create", () => this.editor.create(description));
    page.addEventListener("delete", ({ detail }) => this.deletions.add(description, detail));
    page.addEventListener("event", ({ detail }) => {
      this.meters.count();
      this.log.add(description.path ? description.name : null, detail, page.titleOf(detail.id));
      this.editor.changed(description.name, detail);
      if (detail.op !== "update") this.resources.changed(description.name);
    });
    this.#turnTo(page, summary.name, labelText(description));
  }

  #turnTo(page, name, title) {
    this.page?.close();
    this.page = page;
    this.resources.point(name);
    this.#arrange();
    document.title = `${title} · Headwater`;
    fill(this.place, page.element);
  }

  /** The page of a class, if that is what is shown. */
  get #results() {
    return this.page instanceof Results ? this.page : null;
  }

  async #describe(name) {
    if (!this.#descriptions.has(name)) {
      const { content } = await ask(this.client, "GET", `schemas/${part(name)}`);
      this.#descriptions.set(name, describe(content));
    }
    return this.#descriptions.get(name);
  }

  async #edit(resource, id) {
    await this.editor.edit(await this.#describe(resource), id);
  }

  #toggleLog() {
    this.#logShown = !this.#logShown;
    this.#arrange();
  }

  /** Meters and events are about what is live, which operations are not. */
  #arrange() {
    const live = !(this.page instanceof AdminPage);
    this.meters.rest(!live);
    this.logSwitch.hidden = !live;
    this.logSwitch.setAttribute("aria-pressed", String(this.#logShown));
    this.log.element.hidden = !live || !this.#logShown;
    main.classList.toggle("no-log", this.log.element.hidden);
  }
}

function person() {
  const signOut = async () => {
    await session.signOut();
  };
  return session.signedIn
    ? h("span.person", {}, h("span.name", { title: session.user.email }, session.user.username), h("button.quiet", { type: "button", on: { click: signOut } }, "Sign out"))
    : h("span.person", {}, h("button.primary", { type: "button", on: { click: () => signIn() } }, "Sign in"));
}

function leave() {
  desk?.close();
  desk = null;
  fill(bar);
  // What is said there is about what the former person did.
  fill(document.getElementById("toasts"));
}

function signIn(reason) {
  leave();
  document.title = "Sign in · Headwater";
  main.className = "";
  fill(main, signInPage(session, { reason, onVisit: () => enter() }));
  document.getElementById("username").focus();
}

async function enter() {
  leave();
  main.className = "desk";
  try {
    desk = await Desk.open();
    await desk.show();
  } catch (error) {
    desk?.close();
    desk = null;
    main.className = "";
    fill(main, h("div.welcome", {}, h("p", { role: "alert" }, words(error)), h("button.primary", { type: "button", on: { click: () => start() } }, "Try again")));
  }
}

async function start() {
  try {
    await session.restore();
  } catch {
    fill(main, h("div.welcome", {}, h("p", { role: "alert" }, "The server does not answer."), h("button.primary", { type: "button", on: { click: () => start() } }, "Try again")));
    return;
  }
  if (session.signedIn) await enter();
  else signIn();
}

session.addEventListener("change", ({ detail }) => (session.signedIn ? enter() : signIn(detail.reason)));
addEventListener("hashchange", () => desk?.show());
chooseTheme(document.getElementById("theme"));
await start();
