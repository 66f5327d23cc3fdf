// What the server does: its workers, its connections, and a way to close some.
import { h } from "../dom.js";

export class AdminPage {
  constructor() {
    this.element = h("section.results", {}, h("h1", {}, "Operations"));
  }

  close() {}
}
