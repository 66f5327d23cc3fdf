// Who is signed in, and their tokens.
//
// The access token lives in memory only. The refresh token is in sessionStorage, so that a reload keeps the session and
// closing the tab ends it; it is not in localStorage, where it would outlive the browser on a machine that others use.
// A duplicated tab starts with a copy of it. Since each refresh token works once, tabs tell each other of its successor:
// otherwise the second one to use it would look like a thief, and both would be signed out.

const STORED = "headwater.refresh";
const BASE = "/api/v1/auth";
/** A token that ends sooner is renewed first; the server announces the end of a live connection 60 seconds ahead. */
const RENEW_BEFORE_MS = 75_000;

/** Says why signing in did not work, in words for a person. */
export class SignInRefused extends Error {}

/** The session ended on the server: its refresh token is no longer good. */
export class SessionEnded extends Error {}

async function post(path, body, token) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(BASE + path, { method: "POST", headers, body: JSON.stringify(body) });
}

/** Fires `change` when somebody signs in or out; `detail.reason` says why, when it was not the person at this tab. */
export class Session extends EventTarget {
  user = null;
  #access = null;
  #lifetime = 0;
  #endsAt = 0;
  #refresh = null;
  #renewing = null;
  #tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("headwater.session") : null;

  constructor() {
    super();
    this.#tabs?.addEventListener("message", ({ data }) => this.#heard(data));
  }

  get signedIn() {
    return this.user !== null;
  }

  hasRole(...roles) {
    return roles.some((role) => this.user?.roles?.includes(role));
  }

  /** Take up the session that this tab had before a reload, if it is still good. */
  async restore() {
    try {
      this.#refresh = sessionStorage.getItem(STORED);
    } catch {
      return;
    }
    if (!this.#refresh) return;
    try {
      await this.#identify(await this.token());
    } catch (error) {
      if (error instanceof SessionEnded) return;
      throw error;
    }
  }

  async signIn(username, password) {
    const answer = await post("/login", { username, password });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      const wait = answer.headers.get("Retry-After");
      throw new SignInRefused(wait ? `${problem.detail} (${wait} s)` : (problem.detail ?? "The server does not answer."));
    }
    this.#take(await answer.json());
    await this.#identify(this.#access);
    this.#changed();
  }

  async signOut() {
    const refresh = this.#refresh;
    this.#end();
    this.#tabs?.postMessage({ ended: refresh });
    // The session ends on the server as well: its sockets close, its tokens are worthless.
    if (refresh) await post("/logout", { refresh_token: refresh }).catch(() => null);
  }

  /**
   * An access token that is good for a while, or null for an anonymous visitor.
   * @param {{renew?: boolean}} [how] `renew`: the one there is was refused.
   */
  async token({ renew = false } = {}) {
    if (!this.#refresh) return null;
    // A lifetime of a minute or less is renewed at its half.
    const margin = Math.min(RENEW_BEFORE_MS, this.#lifetime / 2);
    if (!renew && this.#access && this.#endsAt - performance.now() > margin) return this.#access;
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = null;
    });
    return this.#renewing;
  }

  async #renew() {
    const spent = this.#refresh;
    const exchange = async () => {
      // Another tab may have been faster while this one waited for its turn.
      if (this.#refresh !== spent) return this.#access;
      const answer = await post("/refresh", { refresh_token: spent });
      if (answer.status === 401 || answer.status === 422) {
        this.#end("Your session has ended. Sign in again.");
        throw new SessionEnded();
      }
      if (!answer.ok) throw new Error(`The server answers ${answer.status}.`);
      this.#take(await answer.json());
      this.#tabs?.postMessage({ spent, access: this.#access, lifetime: this.#lifetime, refresh: this.#refresh });
      return this.#access;
    };
    // Only secure contexts have locks. Without them the server's ten seconds of grace cover tabs that renew at once.
    return navigator.locks ? navigator.locks.request("headwater.refresh", exchange) : exchange();
  }

  async #identify(token) {
    const answer = await fetch("/api/v1/users/me", { headers: { Authorization: `Bearer ${token}` } });
    if (!answer.ok) throw new Error(`The server answers ${answer.status}.`);
    this.user = await answer.json();
  }

  #take({ access_token: access, expires_in: seconds, refresh_token: refresh }) {
    this.#adopt(access, seconds * 1000, refresh);
  }

  #adopt(access, lifetime, refresh) {
    this.#access = access;
    this.#lifetime = lifetime;
    this.#endsAt = performance.now() + lifetime;
    this.#refresh = refresh;
    this.#store(refresh);
  }

  #heard(told) {
    if (told.spent && told.spent === this.#refresh) this.#adopt(told.access, told.lifetime, told.refresh);
    else if (told.ended && told.ended === this.#refresh) this.#end("You signed out in another tab.");
  }

  #end(reason) {
    this.#access = this.#refresh = this.user = null;
    this.#store(null);
    this.#changed(reason);
  }

  #store(refresh) {
    try {
      if (refresh) sessionStorage.setItem(STORED, refresh);
      else sessionStorage.removeItem(STORED);
    } catch {
      // Storage may be forbidden; the session then lasts until the next load.
    }
  }

  #changed(reason) {
    this.dispatchEvent(new CustomEvent("change", { detail: { reason } }));
  }
}
