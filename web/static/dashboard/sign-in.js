// The page before anybody has signed in.
import { h } from "../dom.js";
import { SignInRefused } from "./session.js";

/**
 * @param {import("./session.js").Session} session
 * @param {{reason?: string, onVisit: () => void}} options `onVisit`: the person looks around without signing in.
 */
export function signInPage(session, { reason, onVisit }) {
  const problem = h("p.problem", { role: "alert", hidden: !reason }, reason);
  const username = h("input", { id: "username", name: "username", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true, maxlength: "320" });
  const password = h("input", { id: "password", name: "password", type: "password", autocomplete: "current-password", required: true, maxlength: "1024" });
  const submit = h("button.primary", { type: "submit" }, "Sign in");
  const signIn = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    problem.hidden = true;
    try {
      await session.signIn(username.value.trim(), password.value);
    } catch (error) {
      problem.textContent = error instanceof SignInRefused ? error.message : "The server does not answer. Try again in a moment.";
      problem.hidden = false;
      password.select();
    } finally {
      submit.disabled = false;
    }
  };
  return h("div.welcome", {},
    h("img", { src: "/static/favicon.svg", alt: "", width: "52", height: "52" }),
    h("h1", {}, "Headwater"),
    h("p.soft", {}, "Documents over REST, and every committed change as it happens."),
    h("form.card", { "aria-label": "Sign in", on: { submit: signIn } },
      h("div.field", {}, h("label", { for: "username" }, "Username or email"), username),
      h("div.field", {}, h("label", { for: "password" }, "Password"), password),
      problem, submit),
    h("button.quiet", { type: "button", on: { click: onVisit } }, "Look around without signing in"));
}
