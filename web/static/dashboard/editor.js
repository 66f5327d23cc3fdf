// One document in a sheet at the side: read it, write it, act on it. It stays beside the live result, and says when
// somebody else changes what is being edited.
import { fill, h } from "../dom.js";
import { ask, ifMatch, part, words } from "./api.js";
import { difference } from "./difference.js";
import { Form } from "./form.js";
import { fieldsOf, labelOf } from "./schema.js";
import { toast } from "./toasts.js";
import { cellText, timeText } from "./values.js";

const HOUSEKEEPING = ["created_at", "created_by", "updated_at", "updated_by", "revision", "invalid"];
let editors = 0;

/** Fires `delete` (detail: {description, id, title, etag}) and `close`. */
export class Editor extends EventTarget {
  #client;
  #description;
  #references;
  #id = null;
  #document = null;
  #etag = null;
  #form = null;
  #key = null;
  #busy = false;
  /** Whether the form is that of an action. */
  #acting = false;
  /** Answers that come after the sheet shows something else are dropped. */
  #turn = 0;

  constructor(client, references) {
    super();
    this.#client = client;
    this.#references = references;
    editors += 1;
    this.title = h("h2", { id: `sheet-title-${editors}`, tabindex: "-1" });
    this.notice = h("div.notice", { role: "status", hidden: true });
    this.content = h("div.sheet-content");
    this.foot = h("footer.sheet-foot");
    this.element = h("dialog.sheet", { "aria-labelledby": this.title.id, on: {
      close: () => this.#closed(),
      click: (event) => {
        // A click on the backdrop is one on the dialog itself.
        if (event.target === this.element && !this.#form?.changed) this.element.close();
      },
    } },
    h("header.sheet-head", {}, this.title, h("button.plain.close", { type: "button", "aria-label": "Close", on: { click: () => this.element.close() } }, "×")),
    this.notice, this.content, this.foot);
  }

  /** Begin a new document. */
  create(description) {
    this.#show(description, null);
    this.title.textContent = `New ${description.label.toLowerCase()}`;
    this.#key = null;
    this.#write(fieldsOf(description.create), {}, "Create", () => this.#create());
    this.#open();
    this.#form.focus();
  }

  /** Show a document; resolves when it is there or the server has refused it. */
  async edit(description, id) {
    this.#show(description, id);
    fill(this.content, h("p.soft", {}, "Reading …"));
    this.#open();
    await this.#load();
  }

  /** An event of a live result of a class: it may be about this document. */
  changed(resource, event) {
    if (!this.element.open || resource !== this.#description.name || event.id !== this.#id || this.#busy) return;
    if (event.op === "delete") this.#tell("This document was deleted by somebody else.");
    else if (this.#differs(event.document)) {
      const fields = event.changed?.map(labelOf).join(", ");
      const text = `Somebody changed this document${fields ? `: ${fields}` : ""}.`;
      if (this.#begun) this.#keep(text);
      else this.#load(text);
    }
  }

  /** Whether there is what a reload would take away: something written, or the form of an action. */
  get #begun() {
    return this.#acting || Boolean(this.#form?.changed);
  }

  #keep(text) {
    this.#tell(this.#acting ? text : `${text} What you wrote is kept; saving puts it on top.`);
  }

  close() {
    this.element.close();
  }

  #differs(document) {
    return Boolean(document && this.#document)
      && Object.entries(document).some(([name, value]) => JSON.stringify(value) !== JSON.stringify(this.#document[name]));
  }

  #show(description, id) {
    this.#turn += 1;
    this.#description = description;
    this.#id = id;
    this.#document = this.#etag = this.#form = null;
    this.#busy = this.#acting = false;
    this.notice.hidden = true;
    fill(this.foot);
  }

  #open() {
    if (!this.element.open) this.element.showModal();
  }

  #closed() {
    this.#turn += 1;
    this.#id = null;
    fill(this.content);
    this.dispatchEvent(new Event("close"));
  }

  #path(...more) {
    return [this.#description.path, this.#id, ...more].map(part).join("/");
  }

  /** Read the document and show it; `because` of somebody's change, only if the person has begun nothing meanwhile. */
  async #load(because = null) {
    const turn = this.#turn;
    let answer, problem;
    try {
      answer = await ask(this.#client, "GET", this.#path());
    } catch (error) {
      problem = error;
    }
    if (turn !== this.#turn) return;
    if (because && this.#begun) {
      // With the former etag, so that saving finds out what has changed.
      this.#keep(because);
      return;
    }
    this.#acting = false;
    if (problem) {
      this.#form = null;
      fill(this.content, h("p.problem", { role: "alert" }, words(problem)));
      return;
    }
    this.#document = answer.content;
    this.#etag = answer.etag;
    this.notice.hidden = true;
    this.#keepFocus(() => this.#draw());
  }

  /** Draw, and give the focus to the successor of what had it. */
  #keepFocus(draw) {
    const nameOf = (one) => one.name || one.textContent;
    const former = nameOf(document.activeElement);
    const likes = () => [...this.element.querySelectorAll("input, select, textarea, button")].filter((one) => nameOf(one) === former);
    const place = likes().indexOf(document.activeElement);
    draw();
    likes()[place]?.focus();
  }

  #draw() {
    const description = this.#description;
    this.title.textContent = cellText(this.#document[description.title], "string") || this.#id;
    if (description.update && description.may.includes("update")) {
      // The create form tells defaults and limits of a field as it stands in a document.
      this.#write(fieldsOf(description.create ?? description.update), this.#document, "Save", () => this.#save());
    } else {
      this.#form = null;
      fill(this.content, this.#facts(description.columns.map((field) => field.name)));
      fill(this.foot, this.#buttons());
    }
  }

  #write(fields, values, label, send) {
    this.#form = new Form(fields, values, (field) => this.#suggest(field));
    const submit = h("button.primary", { type: "submit", form: "sheet-form" }, label);
    const form = h("form", { id: "sheet-form", novalidate: true, on: { submit: (event) => {
      event.preventDefault();
      this.#once(submit, send);
    } } }, this.#form.element);
    const shown = fields.map((field) => field.name);
    const rest = this.#document ? Object.keys(this.#document).filter((name) => !shown.includes(name)) : [];
    fill(this.content, form, rest.length ? this.#facts(rest) : null);
    fill(this.foot, submit, this.#document ? this.#buttons() : null);
  }

  /** What is shown and not written here. */
  #facts(names) {
    const order = (name) => (name === "id" ? -1 : HOUSEKEEPING.indexOf(name) + 1);
    return h("dl.facts", {}, [...names].sort((one, other) => order(one) - order(other)).map((name) => {
      const field = this.#description.columns.find((one) => one.name === name);
      const value = this.#document[name];
      const text = field?.kind === "datetime" && value ? timeText(value) : typeof value === "object" ? JSON.stringify(value) : String(value ?? "–");
      const target = field?.reference && typeof value === "string" ? this.#references.name(field.reference, value) : null;
      return [h("dt", {}, field?.label ?? labelOf(name)), h("dd", { title: text }, target && target !== text ? [target, " ", h("code", {}, text)] : text)];
    }));
  }

  #buttons() {
    const { actions, may } = this.#description;
    return [
      h("span.space"),
      actions.map((action) => h("button.quiet", { type: "button", on: { click: () => this.#prepare(action) } }, labelOf(action.name))),
      may.includes("delete") ? h("button.quiet.danger", { type: "button", on: { click: () => this.#delete() } }, "Delete") : null,
    ];
  }

  /** The form of an action, such as moderation. */
  #prepare(action) {
    const fields = fieldsOf(action.form);
    const values = Object.fromEntries(fields.filter((field) => field.kind === "enum").map((field) => [field.name, this.#document[field.name]]));
    this.#acting = true;
    this.#form = new Form(fields, Object.fromEntries(Object.entries(values).filter(([name, value]) => fields.find((field) => field.name === name).choices.includes(value))));
    const submit = h("button.primary", { type: "submit", form: "sheet-form" }, labelOf(action.name));
    fill(this.content, h("p.hint", {}, action.description), h("form", { id: "sheet-form", novalidate: true, on: { submit: (event) => {
      event.preventDefault();
      this.#once(submit, () => this.#act(action));
    } } }, this.#form.element));
    fill(this.foot, submit, h("button.quiet", { type: "button", on: { click: () => this.#load() } }, "Back"));
    this.#form.focus();
  }

  async #create() {
    const body = this.#form.values();
    if (!body) return;
    // Pressing again after a lost answer creates nothing twice.
    const text = JSON.stringify(body);
    if (this.#key?.text !== text) this.#key = { text, key: [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("") };
    await ask(this.#client, "POST", part(this.#description.path), { body, headers: { "Idempotency-Key": this.#key.key } });
    this.element.close();
    toast(`${this.#description.label} created.`);
  }

  async #save() {
    const body = this.#form.values({ changedOnly: true });
    if (!body) return;
    if (Object.keys(body).length) {
      const headers = { "Content-Type": "application/merge-patch+json", "If-Match": this.#etag };
      const patch = () => JSON.stringify(difference(this.#document, body));
      try {
        await ask(this.#client, "PATCH", this.#path(), { body: patch(), headers });
      } catch (error) {
        if (error.status !== 412) throw error;
        // Only the changed fields are sent, so those that somebody else changed meanwhile are safe.
        const { content, etag } = await ask(this.#client, "GET", this.#path());
        const theirs = Object.keys(body).filter((name) => JSON.stringify(content[name]) !== JSON.stringify(this.#document[name]));
        this.#document = content;
        this.#etag = etag;
        if (theirs.length) {
          this.#tell(`Somebody else changed ${theirs.map(labelOf).join(", ")} meanwhile. Save again to put yours in its place.`);
          return;
        }
        await ask(this.#client, "PATCH", this.#path(), { body: patch(), headers: { ...headers, "If-Match": etag } });
      }
      toast("Saved.");
    }
    this.element.close();
  }

  async #act(action) {
    const body = this.#form.values();
    if (!body) return;
    const headers = ifMatch(this.#description.conditional, this.#etag);
    try {
      await ask(this.#client, "POST", this.#path(action.name), { body, headers });
    } catch (error) {
      if (error.status !== 412) throw error;
      // The person decides again, now that there is another document to act on.
      const { content, etag } = await ask(this.#client, "GET", this.#path());
      this.#document = content;
      this.#etag = etag;
      this.#tell("Somebody else changed this document meanwhile. Press again to act on it as it is now, or look at it first: Back.");
      return;
    }
    this.element.close();
    toast("Done.");
  }

  #delete() {
    const detail = { description: this.#description, id: this.#id, title: this.title.textContent, etag: this.#etag };
    this.element.close();
    this.dispatchEvent(new CustomEvent("delete", { detail }));
  }

  /** Carry out one request, with its button at rest meanwhile, and its problem in the form. */
  async #once(button, send) {
    if (this.#busy) return;
    const turn = this.#turn;
    this.#busy = button.disabled = true;
    try {
      await send();
    } catch (error) {
      if (turn === this.#turn) this.#form.refuse(words(error), error.errors);
    } finally {
      button.disabled = false;
      if (turn === this.#turn) this.#busy = false;
    }
  }

  #tell(text) {
    this.notice.textContent = text;
    this.notice.hidden = false;
  }

  #suggest(field) {
    const target = this.#description.references[field.name];
    if (!target) return null;
    return (list) => this.#references.choices(target).then(
      (choices) => fill(list, choices.map(({ id, name }) => h("option", { value: id }, name))),
      () => null,
    );
  }
}
