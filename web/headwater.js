// @ts-check
/**
 * Live queries of a Headwater server: a local result that is kept equal to the server's, or says that it is not.
 *
 *     const client = new Headwater("https://api.example.org", { getToken: () => session.token });
 *     const posts = client.live("posts", { filter: { status: "published" }, sort: ["-created_at"], limit: 50 });
 *     posts.on("change", ({ items }) => render(items));
 *
 * Needs WebSocket, fetch and ES2022; no dependencies. docs/client.md has the guarantees.
 * @module
 */

const SUBPROTOCOL = "headwater.v1";
/** The server's limits are 100 subscriptions, and 20 messages a second with bursts of 150. */
const SUBSCRIPTIONS_MAX = 100;
const MESSAGES_BURST = 120;
const MESSAGES_PER_SECOND = 15;
const MESSAGE_BYTES_MAX = 64 * 1024;
const OPEN_MS = 15_000;
const PROBE_MS = 5_000;
const PAUSE_MS = 500;
const PAUSE_MS_MAX = 30_000;
/** A connection that lasted as long as this was a good one: the pauses begin anew after it. */
const GOOD_MS = 10_000;
const SOCKET_AGAIN_MS = 300_000;
const LIMIT = 1_000;
/** Any write moves these, and one that moves nothing else that a view shows sends no event. */
const BOOKKEEPING = ["revision", "updated_at", "updated_by"];

/** @typedef {"connecting" | "live" | "stale" | "offline"} State */
/** @typedef {Record<string, any> & { id: string }} Doc */
/** @typedef {{ filter?: Record<string, unknown>, sort?: string | string[], fields?: string[], limit?: number }} Query */
/** @typedef {(why: { refresh: boolean }) => string | null | undefined | Promise<string | null | undefined>} GetToken */
/**
 * @typedef {object} Options
 * @property {GetToken} [getToken] An access token or API key, null for anonymous. With `refresh` the last one was
 *   refused or is about to expire: get another.
 * @property {"auto" | "websocket" | "sse"} [transport] "auto" takes Server-Sent Events where WebSockets do not get through.
 * @property {any} [WebSocket] An implementation, where there is none (Node before 22).
 */
/**
 * @typedef {object} LiveEvent
 * @property {"create" | "enter" | "update" | "leave" | "delete"} op
 * @property {string} id
 * @property {Doc} [document]
 * @property {string} [etag]
 * @property {string[]} [changed]
 * @property {string} position
 * @property {string} at
 */
/** @typedef {{ code: string | number, message: string }} Trouble */
/** @typedef {{ items: Doc[], events: LiveEvent[] }} Change `events` is empty when a whole result took the place of another. */
/** @typedef {{ document: Doc, etag: string, key: Key }} Entry */
/** @typedef {[rank: number, value: any][]} Key */
/** @typedef {Record<string, string[]>} Kinds */

/**
 * @template {Record<string, any>} Events
 */
class Emitter {
  /** @type {Map<keyof Events, Set<(value: any) => void>>} */
  #listeners = new Map();

  /**
   * Call `listener` with each `name` event. Answers with a function that ends it.
   * @template {keyof Events} Name
   * @param {Name} name
   * @param {(value: Events[Name]) => void} listener
   * @returns {() => void}
   */
  on(name, listener) {
    const known = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, known.add(listener));
    return () => void known.delete(listener);
  }

  /**
   * @template {keyof Events} Name
   * @param {Name} name
   * @param {Events[Name]} value
   * @internal
   */
  _emit(name, value) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(value);
      } catch (error) {
        // The application's fault, which must be seen and must not stop the feed.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/**
 * A connection to a Headwater server, for any number of live queries.
 *
 * Events: `state` (State), `error` (Trouble: the server refuses this client, until `renew()`), `authenticated` (the user).
 * @extends {Emitter<{ state: State, error: Trouble, authenticated: { id: string, username: string, roles: string[] } }>}
 */
export class Headwater extends Emitter {
  /** @type {Options} @internal */ _options;
  /** @type {string} @internal */ _api;
  /** @type {"websocket" | "sse"} @internal */ _transport;
  /** @internal */ _socketFailures = 0;
  /** @type {Link[]} */ #links = [];
  /** @type {Map<string, Subscription>} */ #subscriptions = new Map();
  /** @type {Map<string, Promise<Kinds>>} */ #kinds = new Map();
  /** @type {Map<boolean, Promise<string | null>>} */ #tokens = new Map();
  /** @type {string | null | undefined} */ #token;
  /** @type {State} */ #told = "offline";
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #again;
  /** @type {Trouble | null} */ #refused = null;
  #closed = false;

  /**
   * @param {string} [url] The server: `https://api.example.org`, or nothing for the page's own.
   * @param {Options} [options]
   */
  constructor(url = "", options = {}) {
    super();
    const base = new URL(url || "/", globalThis.location?.href);
    base.protocol = base.protocol.replace(/^ws/, "http");
    this._api = `${base.origin}${base.pathname.replace(/\/+$/, "").replace(/\/api\/v1$/, "")}/api/v1`;
    this._options = options;
    this._transport = options.transport === "sse" ? "sse" : "websocket";
    for (const name of ["online", "offline", "pageshow", "focus"]) globalThis.addEventListener?.(name, this.#wake);
    for (const name of ["visibilitychange", "resume"]) globalThis.document?.addEventListener(name, this.#wake);
  }

  /** The worst of its connections: "offline" before the first live query, and when nothing can be reached. */
  get state() {
    const states = this.#links.map((link) => link.state);
    if (this.#closed || !states.length) return "offline";
    return /** @type {State[]} */ (["offline", "connecting", "stale", "live"]).find((state) => states.includes(state)) ?? "live";
  }

  /**
   * Milliseconds: how much later the last event came than the quickest one, so a wrong clock does not matter; while
   * the connection is not live, the time since it was heard of.
   */
  get lag() {
    return Math.max(0, ...this.#links.map((link) => link.lag));
  }

  /**
   * A live query. Equal ones share a subscription.
   * @param {string} resource
   * @param {Query} [query] `limit` is 1,000 unless said otherwise.
   * @returns {Live}
   */
  live(resource, query = {}) {
    if (this.#closed) throw new Error("the client is closed");
    const { filter = {}, fields = null, limit = LIMIT } = query;
    const sort = typeof query.sort === "string" ? query.sort.split(",") : query.sort ?? [];
    const key = JSON.stringify([resource, filter, fields, sort, limit]);
    let subscription = this.#subscriptions.get(key);
    if (!subscription) {
      subscription = new Subscription(this, key, resource, JSON.parse(JSON.stringify(filter)), fields, [...sort], limit);
      this.#subscriptions.set(key, subscription);
      if (!this.#refused) this._place(subscription);
    }
    const live = new Live(subscription);
    subscription.lives.add(live);
    return live;
  }

  /**
   * `fetch` of the API with the present token, and once more with another when it is refused (401).
   * @param {string} path Below `/api/v1/`.
   * @param {Omit<RequestInit, "body"> & { body?: any }} [init] A plain object or array as `body` is sent as JSON.
   * @returns {Promise<Response>}
   */
  async fetch(path, init = {}) {
    let { body } = init;
    const headers = new Headers(init.headers);
    if (Array.isArray(body) || Object.getPrototypeOf(body ?? 0) === Object.prototype) {
      body = JSON.stringify(body);
      if (!headers.has("Content-Type")) headers.set("Content-Type", "application/json");
    }
    for (let again = false; ; again = true) {
      const token = again || this.#token === undefined ? await this._getToken(again) : this.#token;
      for (const [name, value] of Object.entries(credentials(token))) headers.set(name, value);
      const response = await fetch(`${this._api}/${path.replace(/^\//, "")}`, { ...init, headers, body });
      if (response.status !== 401 || again || !this._options.getToken) return response;
    }
  }

  /**
   * Ask `getToken` again and go on as that user: after a sign-in, or when the server has refused this client.
   * @returns {Promise<void>}
   */
  async renew() {
    this.#token = undefined;
    if (this.#refused) {
      this.#refused = null;
      this.#spread();
    } else {
      await Promise.all(this.#links.map((link) => link.renew(false)));
    }
  }

  /** End all live queries and connections, for good. Safe to call twice. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    for (const name of ["online", "offline", "pageshow", "focus"]) globalThis.removeEventListener?.(name, this.#wake);
    for (const name of ["visibilitychange", "resume"]) globalThis.document?.removeEventListener(name, this.#wake);
    clearTimeout(this.#again);
    for (const subscription of [...this.#subscriptions.values()]) subscription.end(null);
    for (const link of this.#links) link.close();
    this.#links = [];
    this._tell();
  }

  /** @param {Event} event */
  #wake = (event) => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (event.type === "online" && this._transport === "sse") this.#trySocket();
    for (const link of this.#links) link.wake(event.type);
  };

  /** @internal */
  _tell() {
    const { state } = this;
    if (state === this.#told) return;
    this.#told = state;
    this._emit("state", state);
  }

  /**
   * One call of `getToken` at a time, whoever asks.
   * @param {boolean} refresh
   * @returns {Promise<string | null>}
   * @internal
   */
  _getToken(refresh) {
    const running = this.#tokens.get(refresh);
    if (running) return running;
    const asked = (async () => {
      try {
        return (this.#token = (await this._options.getToken?.({ refresh })) ?? null);
      } finally {
        this.#tokens.delete(refresh);
      }
    })();
    this.#tokens.set(refresh, asked);
    return asked;
  }

  /**
   * How each field's values are compared, which their JSON does not tell.
   * @param {string} resource
   * @param {boolean} [anew]
   * @returns {Promise<Kinds>}
   * @internal
   */
  _kinds(resource, anew = false) {
    let kinds = anew ? undefined : this.#kinds.get(resource);
    if (!kinds) {
      kinds = this.fetch(`schemas/${resource}`, { signal: timeout(OPEN_MS) }).then(async (response) => {
        if (response.status === 429 || response.status >= 500) throw new Error(`${response.status}`);
        // Of a resource that is not there or not for us, the subscription's own answer will tell.
        return response.ok ? ((await response.json()).order ?? {}) : {};
      });
      this.#kinds.set(resource, kinds);
      kinds.catch(() => this.#kinds.delete(resource));
    }
    return kinds;
  }

  /** @param {Subscription} subscription @internal */
  _place(subscription) {
    if (this.#closed) return;
    let link = this.#links.find((known) => known.takes(subscription));
    if (!link) this.#links.push((link = new Link(this)));
    link.add(subscription);
    this._tell();
  }

  /** @param {Subscription} subscription @internal */
  _forget(subscription) {
    if (this.#subscriptions.get(subscription.key) === subscription) this.#subscriptions.delete(subscription.key);
    const { link } = subscription;
    if (!link) return;
    link.remove(subscription);
    // The first one stays, for the next query.
    if (!link.subscriptions.size && (this._transport === "sse" || link !== this.#links[0])) {
      this.#links = this.#links.filter((known) => known !== link);
      link.close();
    }
    this._tell();
  }

  /** Change the transport, and go on where each subscription is. @param {"websocket" | "sse"} transport @internal */
  _switch(transport) {
    if ((this._options.transport ?? "auto") !== "auto" || this._transport === transport || this.#closed) return;
    this._transport = transport;
    this._socketFailures = 0;
    this.#spread();
    clearTimeout(this.#again);
    if (transport === "sse") this.#again = setTimeout(() => this.#trySocket(), SOCKET_AGAIN_MS);
  }

  #spread() {
    const failures = this.#links.map((link) => link.failures);
    for (const link of this.#links) link.close();
    this.#links = [];
    for (const subscription of this.#subscriptions.values()) this._place(subscription);
    for (const link of this.#links) link.failures = Math.max(0, ...failures);
    this._tell();
  }

  /** Look whether WebSockets get through by now. */
  #trySocket() {
    clearTimeout(this.#again);
    const socket = this._socket();
    const done = setTimeout(() => socket?.close(), OPEN_MS);
    if (!socket) return;
    socket.onerror = () => {};
    socket.onmessage = () => {
      socket.close();
      this._switch("websocket");
    };
    socket.onclose = () => {
      clearTimeout(done);
      if (this._transport === "sse" && !this.#closed) this.#again = setTimeout(() => this.#trySocket(), SOCKET_AGAIN_MS);
    };
  }

  /** @returns {any} @internal */
  _socket() {
    const Socket = this._options.WebSocket ?? globalThis.WebSocket;
    return new Socket(`${this._api.replace(/^http/, "ws")}/ws`, SUBPROTOCOL);
  }

  /** The server wants no more of this client. @param {Trouble} trouble @internal */
  _refuse(trouble) {
    if (this.#refused || this.#closed) return;
    this.#refused = trouble;
    for (const link of this.#links) link.close("offline");
    this._tell();
    this._emit("error", trouble);
  }
}

/**
 * A live query's result.
 *
 * Events: `change` (Change, at most one in a frame), `event` (LiveEvent: each one, also of what lies beyond `limit`),
 * `state` (State), `error` (Trouble: the query has ended).
 * @extends {Emitter<{ change: Change, event: LiveEvent, state: State, error: Trouble }>}
 */
export class Live extends Emitter {
  /** @type {Subscription} */ #subscription;

  /** @param {Subscription} subscription @internal */
  constructor(subscription) {
    super();
    this.#subscription = subscription;
  }

  /** The documents in order: the first `limit` of all that match. Another array after each change. */
  get items() {
    return this.#subscription.items;
  }

  /** Whether `items` is all that matches. */
  get complete() {
    return this.#subscription.whole;
  }

  /**
   * "live": `items` is the result as the server has it; "stale": it may be older; "offline": the same, and nothing can
   * be reached; "connecting": there is no result yet.
   */
  get state() {
    return this.#subscription.state;
  }

  /** Why the query has ended, if the server ended it. */
  get error() {
    return this.#subscription.trouble;
  }

  /** The entity tag of a document in the result, for `If-Match`. @param {string} id */
  etag(id) {
    return this.#subscription.entries.get(id)?.etag;
  }

  /** Fulfilled with the items at the first result; rejected when the query ends without one. @returns {Promise<Doc[]>} */
  get ready() {
    return this.#subscription.caughtUp("").then(() => this.items);
  }

  /**
   * Fulfilled when `items` has everything up to a position: the `X-Position` of any answer.
   * @param {string | null} position
   * @returns {Promise<void>}
   */
  caughtUp(position) {
    return this.#subscription.caughtUp(position ?? "");
  }

  /** End this query. `items` stays as it is. Safe to call twice. */
  close() {
    const { lives } = this.#subscription;
    if (lives.delete(this) && !lives.size) this.#subscription.end(null);
  }
}

/** One subscription of the protocol and its local result, shared by equal live queries. */
class Subscription {
  /** @type {Set<Live>} */ lives = new Set();
  /** @type {Link | null} */ link = null;
  /** Links that have this view already, by another spelling of the query. @type {WeakSet<Link>} */ refusedBy = new WeakSet();
  /** @type {"idle" | "asked" | "snapshot" | "recovering" | "ready" | "ended"} */ phase = "idle";
  /** @type {string | undefined} */ view;
  /** Everything up to here is in `sorted`. @type {string | undefined} */ position;
  /** @type {Trouble | null} */ trouble = null;
  /** @type {Map<string, Entry>} */ entries = new Map();
  /** What is known, in order: all that matches up to `#edge`. @type {Entry[]} */ #sorted = [];
  /** Where the known part ends; null when all is known. @type {Key | null} */ #edge = null;
  /** @type {{ document: Doc, etag: string }[]} */ #pages = [];
  /** @type {Kinds | null} */ kinds = null;
  #spare;
  #seen = false;
  /** @type {State} */ #told = "connecting";
  /** @type {Doc[] | null} */ #items = null;
  /** @type {LiveEvent[]} */ #events = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #emitting;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #refilling;
  #refilledAt = 0;
  #refillMs = 0;
  /** @type {{ position: string, resolve: () => void, reject: (error: Error) => void }[]} */ #waiters = [];
  /** @type {{ path: string, down: boolean }[]} */ #order;

  /**
   * @param {Headwater} client
   * @param {string} key
   * @param {string} resource
   * @param {Record<string, unknown>} filter
   * @param {string[] | null} fields
   * @param {string[]} sort
   * @param {number} limit
   */
  constructor(client, key, resource, filter, fields, sort, limit) {
    this.client = client;
    this.key = key;
    this.resource = resource;
    this.filter = filter;
    this.sort = sort;
    this.limit = limit;
    this.#order = sort.map((name) => ({ path: name.replace(/^-/, ""), down: name.startsWith("-") }));
    // As the server does it: ties are broken by the id, in the direction of the last key.
    if (!this.#order.some(({ path }) => path === "id")) {
      this.#order.push({ path: "id", down: this.#order.at(-1)?.down ?? false });
    }
    const tops = this.#order.map(({ path }) => path.split(".")[0] ?? "");
    // To keep the order we must be told of all that it depends on.
    /** @type {string[] | null} */
    this.fields = !fields || tops.some((name) => BOOKKEEPING.includes(name)) ? null : [...new Set([...fields, ...tops])].sort();
    this.viewKey = JSON.stringify([resource, filter, this.fields]);
    // Documents that leave are replaced from these, so that not each one costs another snapshot.
    this.#spare = Math.min(Math.max(20, limit), 1_000);
  }

  get items() {
    return (this.#items ??= this.#sorted.slice(0, this.limit).map(({ document }) => document));
  }

  get whole() {
    return this.#seen && !this.#edge && this.#sorted.length <= this.limit;
  }

  /** @returns {State} */
  get state() {
    const { link, phase } = this;
    if (phase === "ended" || !link || link.state === "offline") return "offline";
    if (phase === "ready" && link.state === "live" && !this.#short) return "live";
    return this.#seen ? "stale" : "connecting";
  }

  /** Documents have left, and those that follow in the order are not known. */
  get #short() {
    return this.#edge !== null && this.#sorted.length < this.limit;
  }

  /** The message that asks for this subscription, without its id. */
  get request() {
    const { resource, filter, sort, fields, view, position } = this;
    const limit = this.limit + this.#spare;
    return { resource, filter, sort, limit, ...(fields && { fields }), ...(view && position && { since: { view, position } }) };
  }

  /** The same for Server-Sent Events. */
  get address() {
    const { resource, filter, sort, limit, fields, since } = /** @type {any} */ (this.request);
    const query = new URLSearchParams({ filter: JSON.stringify(filter), limit: String(limit) });
    if (!Object.keys(filter).length) query.delete("filter");
    if (sort.length) query.set("sort", sort.join(","));
    if (fields) query.set("fields", fields.join(","));
    if (since) query.set("since", `${since.view}@${since.position}`);
    return `${resource}?${query}`;
  }

  tell() {
    const { state } = this;
    if (state === this.#told) return;
    this.#told = state;
    for (const live of [...this.lives]) live._emit("state", state);
  }

  /** The link is lost, or about to ask. @param {"idle" | "asked"} phase */
  rest(phase) {
    if (this.phase === "ended") return;
    this.phase = phase;
    this.#pages = [];
    clearTimeout(this.#refilling);
    this.#refilling = undefined;
    this.tell();
  }

  /** @param {any} frame */
  subscribed({ view, recovered }) {
    if (this.view && this.view !== view) this.#otherView();
    this.view = view;
    if (recovered) this.phase = "recovering";
    else this.#begin();
  }

  /** Of another class or another user's: neither to be shown nor to be compared as before. */
  #otherView() {
    this.#clear();
    const before = JSON.stringify(this.kinds);
    this.client._kinds(this.resource, true).then(
      (kinds) => {
        if (JSON.stringify(kinds) === before || this.phase === "ended") return;
        this.kinds = kinds;
        this.position = undefined;
        this.link?.again(this);
      },
      () => {},
    );
  }

  #begin() {
    this.phase = "snapshot";
    this.position = undefined;
    this.#pages = [];
    this.tell();
  }

  /** @param {any} frame */
  snapshot({ view, items }) {
    if (this.phase !== "snapshot" && this.phase !== "asked") return;
    this.phase = "snapshot";
    this.view = view;
    for (const item of items) this.#pages.push(item);
  }

  /** @param {any} frame */
  ready({ view, position, complete }) {
    if (this.phase === "idle" || this.phase === "ended") return;
    if (this.phase === "snapshot") {
      this.#sorted = this.#pages.map((item) => ({ ...item, key: this.#keyOf(item.document) }));
      this.#sorted.sort((a, b) => this.#compare(a.key, b.key));
      this.entries = new Map(this.#sorted.map((entry) => [entry.document.id, entry]));
      this.#edge = complete ? null : this.#sorted.at(-1)?.key ?? null;
      this.#pages = [];
      this.#refillMs = Date.now() - this.#refilledAt;
      this.#events = [];
      this.#changed(null);
    }
    this.view = view;
    this.phase = "ready";
    this.#seen = true;
    this.reached(position);
    this.#settle();
  }

  /** @param {LiveEvent} event */
  event(event) {
    if (this.phase !== "ready" && this.phase !== "recovering") return;
    if (this.position && event.position <= this.position) return;
    this.position = event.position;
    const { id, document, etag } = event;
    const old = this.entries.get(id);
    let place = Infinity;
    if (old) {
      place = this.#find(old.key);
      this.#sorted.splice(place, 1);
      this.entries.delete(id);
    }
    if (document) {
      const entry = { document, etag: etag ?? "", key: this.#keyOf(document) };
      // Beyond the edge there are documents that we do not know, so this one cannot be placed.
      if (!this.#edge || this.#compare(entry.key, this.#edge) <= 0) {
        const at = this.#find(entry.key);
        this.#sorted.splice(at, 0, entry);
        this.entries.set(id, entry);
        place = Math.min(place, at);
        this.#trim();
      }
    }
    for (const live of [...this.lives]) live._emit("event", event);
    if (place < this.limit) this.#changed(event);
    if (this.phase === "ready") this.#settle();
  }

  /** A small window of a result that grows must not grow with it. */
  #trim() {
    const most = 2 * (this.limit + this.#spare);
    if (this.#sorted.length <= most) return;
    for (const { document } of this.#sorted.splice(most / 2)) this.entries.delete(document.id);
    this.#edge = this.#sorted.at(-1)?.key ?? null;
  }

  /** Everything up to `position` is here. @param {string} position */
  reached(position) {
    if (this.phase !== "ready") return;
    if (!this.position || position > this.position) this.position = position;
    this.#answer();
  }

  #answer() {
    if (this.phase !== "ready" || this.#short) return;
    const { position = "" } = this;
    const due = this.#waiters.filter((waiter) => waiter.position <= position);
    this.#waiters = this.#waiters.filter((waiter) => waiter.position > position);
    for (const waiter of due) waiter.resolve();
  }

  /** The latest position that is waited for. */
  get awaited() {
    return this.#waiters.reduce((latest, { position }) => (position > latest ? position : latest), "");
  }

  /** @param {string} position @param {string} message */
  reject(position, message) {
    const failed = this.#waiters.filter((waiter) => waiter.position === position);
    this.#waiters = this.#waiters.filter((waiter) => waiter.position !== position);
    for (const waiter of failed) waiter.reject(new Error(message));
  }

  /** @param {string} position @returns {Promise<void>} */
  caughtUp(position) {
    return new Promise((resolve, reject) => {
      if (this.phase === "ended") return reject(new Error(this.trouble?.message ?? "the live query is closed"));
      this.#waiters.push({ position, resolve, reject });
      this.#answer();
      this.link?.ask();
    });
  }

  /** @param {any} frame */
  reset({ reason }) {
    // The user may no longer see what is shown. In the other cases it is shown as stale until the next result.
    if (reason === "access_changed") this.#clear();
    if (this.phase === "asked") this.position = undefined;
    else this.#begin();
  }

  #clear() {
    this.#sorted = [];
    this.#edge = null;
    this.entries.clear();
    this.#seen = false;
    this.#events = [];
    this.#changed(null);
  }

  /** Go on with what has become of the result: live, or short of documents and in need of others. */
  #settle() {
    if (!this.#short) {
      this.#answer();
      if (this.#refilling) clearTimeout(this.#refilling);
      this.#refilling = undefined;
    } else if (!this.#refilling) {
      // Many that leave at once must not become as many queries.
      const pause = Math.min(PAUSE_MS_MAX, Math.max(1_000, 10 * this.#refillMs));
      this.#refilling = setTimeout(() => {
        this.#refilling = undefined;
        if (this.phase !== "ready" || !this.#short) return;
        this.#spare = this.#spare && Math.min(1_000, this.#spare * 2);
        this.#refilledAt = Date.now();
        this.position = undefined;
        this.link?.again(this);
      }, Math.max(0, this.#refilledAt + pause - Date.now()));
    }
    this.link?.ask();
    this.tell();
  }

  /** @param {string} code @param {string} message */
  refused(code, message) {
    if (code === "bad_query" && this.#spare && /^(query\.)?limit\b/.test(message)) {
      // No more than HEADWATER_SNAPSHOT_MAX, which is not told.
      this.#spare = 0;
      this.link?.again(this);
    } else if (code === "already_subscribed" || code === "too_many_subscriptions") {
      const { link } = this;
      if (!link) return;
      this.refusedBy.add(link);
      link.remove(this);
      this.client._place(this);
    } else {
      this.end({ code, message });
    }
  }

  /** @param {Trouble | null} trouble */
  end(trouble) {
    if (this.phase === "ended") return;
    this.client._forget(this);
    this.rest("idle");
    this.phase = "ended";
    this.trouble = trouble;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(new Error(trouble?.message ?? "the live query is closed"));
    clearTimeout(this.#emitting);
    if (trouble?.code === "access_changed") this.#clear();
    this.tell();
    if (trouble) for (const live of [...this.lives]) live._emit("error", trouble);
  }

  /** @param {LiveEvent | null} event */
  #changed(event) {
    this.#items = null;
    if (event) this.#events.push(event);
    // Timers of a hidden page may be a minute late.
    if (globalThis.document?.hidden) queueMicrotask(() => this.#emit());
    this.#emitting ??= setTimeout(() => this.#emit(), 16);
  }

  #emit() {
    if (!this.#emitting) return;
    clearTimeout(this.#emitting);
    this.#emitting = undefined;
    const events = this.#events;
    this.#events = [];
    for (const live of [...this.lives]) live._emit("change", { items: this.items, events });
  }

  /** @param {Doc} document @returns {Key} */
  #keyOf(document) {
    return this.#order.map(({ path, down }) => sortValue(document, path, down, this.kinds?.[path] ?? []));
  }

  /** @param {Key} a @param {Key} b */
  #compare(a, b) {
    for (let i = 0; i < a.length; i++) {
      const order = compareRanked(/** @type {any} */ (a[i]), /** @type {any} */ (b[i]));
      if (order) return this.#order[i]?.down ? -order : order;
    }
    return 0;
  }

  /** The place of the first entry that is not before `key`. @param {Key} key */
  #find(key) {
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#compare(/** @type {Entry} */ (this.#sorted[middle]).key, key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** One connection: a WebSocket for up to 100 subscriptions, or an event stream for one. */
class Link {
  /** @type {State} */ state = "connecting";
  /** @type {Set<Subscription>} */ subscriptions = new Set();
  /** Attempts since the last good connection. */ failures = 0;
  /** By their ids in the protocol, which are used once. @type {Map<string, Subscription>} */ #ids = new Map();
  /** @type {Map<string, Subscription>} */ #views = new Map();
  /** The open transport; what another one still says is not heard. @type {{ close: () => void, send?: (text: string) => void } | null} */ #transport = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #connecting;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #opening;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #watching;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #renewing;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #sending;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #probing;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #leaving;
  #generation = 0;
  #number = 0;
  #welcomed = false;
  #signedIn = false;
  #refresh = false;
  /** @type {string | null} */ #token = null;
  #heartbeatMs = 25_000;
  #openedAt = 0;
  #heardAt = Date.now();
  #tickedAt = 0;
  /** @type {string[]} */ #queue = [];
  #allowance = MESSAGES_BURST;
  #allowedAt = 0;
  /** The position that the one ping under way is about. @type {{ id: string, position: string } | null} */ #ping = null;
  /** When a server that is about to leave wants to be asked again. */ #returnAt = 0;
  #quickestMs = Infinity;
  #lagMs = 0;
  #closed = false;

  /** @param {Headwater} client */
  constructor(client) {
    this.client = client;
    queueMicrotask(() => this.#connect());
  }

  get lag() {
    return this.state === "live" ? this.#lagMs : Date.now() - this.#heardAt;
  }

  /** @param {Subscription} subscription */
  takes(subscription) {
    if (this.client._transport === "sse") return false;
    if (this.subscriptions.size >= SUBSCRIPTIONS_MAX || subscription.refusedBy.has(this)) return false;
    return ![...this.subscriptions].some(({ viewKey }) => viewKey === subscription.viewKey);
  }

  /** @param {Subscription} subscription */
  add(subscription) {
    this.subscriptions.add(subscription);
    subscription.link = this;
    subscription.rest("idle");
    this.#subscribe(subscription);
  }

  /** @param {Subscription} subscription */
  remove(subscription) {
    this.subscriptions.delete(subscription);
    subscription.link = null;
    this.#unsubscribe(subscription);
  }

  /** Ask for a fresh result. @param {Subscription} subscription */
  again(subscription) {
    if (this.client._transport === "sse") return this.#restart();
    this.#unsubscribe(subscription);
    subscription.rest("idle");
    this.#subscribe(subscription);
  }

  /** @param {State} [state] */
  close(state) {
    if (this.#closed) return;
    this.#closed = true;
    this.#drop();
    clearTimeout(this.#connecting);
    this.#become(state ?? "offline");
  }

  /** @param {string} why The name of a browser's event. */
  wake(why) {
    if (this.#closed) return;
    if (why === "offline") {
      if (this.#transport) this.#lost(0);
      this.#become("offline");
    } else if (!this.#transport) {
      // Not all at the same moment: a whole office may be back.
      if (this.#connecting) this.#later(Math.random() * 1_000);
    } else {
      this.#probe();
    }
  }

  /** @param {boolean} refresh */
  async renew(refresh) {
    const transport = this.#transport;
    const token = await this.client._getToken(refresh);
    if (!transport || this.#transport !== transport) return;
    if (!token || !transport.send) return this.#restart();
    this.#token = token;
    this.#refresh = refresh;
    this.#send(authOf(token));
  }

  /** Send a ping for what is waited for, one at a time. */
  ask() {
    if (this.#ping || this.state !== "live" || !this.#transport?.send) return;
    let position = "";
    for (const subscription of this.subscriptions) {
      if (subscription.phase === "ready" && subscription.awaited > position) position = subscription.awaited;
    }
    if (!position) return;
    this.#ping = { id: `p${++this.#number}`, position };
    this.#send({ type: "ping", ...this.#ping });
  }

  /** @param {State} state */
  #become(state) {
    if (state === this.state) return;
    this.state = state;
    for (const subscription of [...this.subscriptions]) subscription.tell();
    this.client._tell();
  }

  /** @param {number} pauseMs */
  #later(pauseMs) {
    clearTimeout(this.#connecting);
    this.#connecting = setTimeout(() => this.#connect(), pauseMs);
  }

  async #connect() {
    clearTimeout(this.#connecting);
    this.#connecting = undefined;
    if (this.#closed || this.#transport) return;
    const generation = ++this.#generation;
    let token;
    try {
      token = await this.client._getToken(this.#refresh);
    } catch {
      if (generation === this.#generation) this.#lost(0);
      return;
    }
    // Closed, or woken up, meanwhile.
    if (generation !== this.#generation || this.#closed || this.#transport) return;
    this.#token = token;
    this.#openedAt = this.#heardAt = Date.now();
    this.#opening = setTimeout(() => this.#lost(0), OPEN_MS);
    try {
      if (this.client._transport === "sse") this.#openStream();
      else this.#openSocket();
    } catch {
      this.#lost(0);
    }
  }

  #openSocket() {
    const socket = this.client._socket();
    const mine = () => this.#transport === socket;
    this.#transport = socket;
    socket.onopen = () => {
      // Before all else, so that no view is first somebody else's. The server takes messages in order.
      if (mine() && this.#token) socket.send(JSON.stringify(authOf(this.#token)));
    };
    socket.onmessage = (/** @type {{ data: string }} */ { data }) => {
      if (mine()) this.#hear(JSON.parse(data));
    };
    socket.onerror = () => {};
    socket.onclose = (/** @type {{ code: number }} */ { code }) => {
      if (mine()) this.#lost(code);
    };
  }

  async #openStream() {
    const [subscription] = this.subscriptions;
    const control = new AbortController();
    const transport = { close: () => control.abort() };
    this.#transport = transport;
    const mine = () => this.#transport === transport;
    let code = 0;
    try {
      if (!subscription) return;
      subscription.kinds ??= await this.client._kinds(subscription.resource);
      if (!mine()) return;
      const headers = { Accept: "text/event-stream", ...credentials(this.#token) };
      const answer = await fetch(`${this.client._api}/${subscription.address}`, { headers, signal: control.signal, cache: "no-store" });
      if (!mine()) return;
      if (!answer.ok || !answer.body) {
        const problem = await answer.json().catch(() => ({}));
        const faults = problem.errors?.map((/** @type {any} */ { loc, msg }) => `${loc.join(".")}: ${msg}`).join("; ");
        if (!mine()) return;
        if (answer.status === 401) code = 4501;
        else if (answer.status >= 400 && answer.status < 500 && answer.status !== 429 && answer.status !== 408) {
          this.#drop();
          const bad = answer.status === 422 || answer.status === 400;
          return subscription.refused(bad ? "bad_query" : problem.code ?? String(answer.status), faults || problem.detail || "refused");
        }
        return;
      }
      this.#ids.set("sse", subscription);
      subscription.rest("asked");
      // What follows either is a reset, or continues what we have.
      if (subscription.view && subscription.position) subscription.subscribed({ view: subscription.view, recovered: true });
      if (subscription.view) this.#views.set(subscription.view, subscription);
      this.#opened();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ; ) {
        const { done, value } = await reader.read();
        if (done || !mine()) break;
        const blocks = (text + value).split("\n\n");
        text = blocks.pop() ?? "";
        for (const block of blocks) {
          const data = /^data: (.*)$/m.exec(block)?.[1];
          if (!data || !mine()) continue;
          const frame = JSON.parse(data);
          if (frame.type === "error") code = frame.code === "forbidden" ? 4503 : 4001;
          else if (frame.type === "goaway") code = 4000;
          this.#hear(frame);
        }
      }
    } catch {
      // Broken off, which `code` tells as well as the error does.
    } finally {
      if (mine()) this.#lost(code);
    }
  }

  /** Frames flow, and as whom we wanted. */
  #opened() {
    clearTimeout(this.#opening);
    this.#welcomed = true;
    this.#refresh = false;
    this.#quickestMs = Infinity;
    this.#tickedAt = Date.now();
    clearInterval(this.#watching);
    this.#watching = setInterval(() => this.#tick(), this.#heartbeatMs / 5);
    this.#become("live");
    for (const subscription of this.subscriptions) this.#subscribe(subscription);
  }

  #drop() {
    this.#generation++;
    const transport = this.#transport;
    this.#transport = null;
    clearTimeout(this.#opening);
    clearInterval(this.#watching);
    clearTimeout(this.#renewing);
    clearTimeout(this.#sending);
    clearTimeout(this.#probing);
    clearTimeout(this.#leaving);
    this.#sending = this.#probing = undefined;
    this.#queue = [];
    this.#ping = null;
    this.#ids.clear();
    this.#views.clear();
    this.#welcomed = this.#signedIn = false;
    try {
      transport?.close();
    } catch {
      // It was not even open.
    }
    for (const subscription of [...this.subscriptions]) subscription.rest("idle");
  }

  /** @param {number} code Of the WebSocket's close; 0: we gave it up. */
  #lost(code) {
    if (this.#closed) return;
    const { client } = this;
    const welcomed = this.#welcomed;
    const unheard = !welcomed && this.#transport && (code < 1012 || code > 1012) && code < 4000;
    const returnMs = this.#returnAt - Date.now();
    this.#returnAt = 0;
    this.#drop();
    if (welcomed && Date.now() - this.#openedAt > GOOD_MS) this.failures = 0;
    const mayRefresh = this.#token && !this.#refresh && client._options.getToken;
    if (code >= 4500 && code < 5000 && !(code === 4501 && mayRefresh)) {
      return client._refuse({ code, message: REFUSALS[code] ?? "the server has refused the connection" });
    }
    let pauseMs = Math.random() * Math.min(PAUSE_MS_MAX, PAUSE_MS * 2 ** this.failures);
    if (code === 4001 || code === 4501) {
      this.#refresh = true;
      if (!this.failures) pauseMs = 0;
    } else if (returnMs > 0) {
      pauseMs = returnMs;
    }
    this.failures++;
    const away = globalThis.navigator?.onLine === false || this.failures > 3;
    this.#become(away ? "offline" : this.state === "connecting" ? "connecting" : this.state === "offline" ? "offline" : "stale");
    if (unheard && client._transport === "websocket" && ++client._socketFailures >= 2) client._switch("sse");
    else if (unheard && client._transport === "sse") client._switch("websocket");
    if (!this.#closed) this.#later(pauseMs);
  }

  /** Leave and come back at once. */
  #restart() {
    if (this.#closed) return;
    this.#drop();
    this.#become("stale");
    this.#later(0);
  }

  /** @param {any} frame */
  #hear(frame) {
    const now = Date.now();
    this.#heardAt = now;
    const at = frame.at ?? frame.as_of;
    if (at) {
      const ms = now - Date.parse(at);
      this.#quickestMs = Math.min(this.#quickestMs, ms);
      this.#lagMs = ms - this.#quickestMs;
    }
    if (this.state === "stale" && this.#welcomed && !this.#transport?.send) this.#become("live");
    const { id } = frame;
    const subscription = frame.type === "event" || frame.type === "reset" ? this.#views.get(frame.view) : this.#ids.get(id);
    switch (frame.type) {
      case "welcome":
        this.client._socketFailures = 0;
        this.#heartbeatMs = frame.heartbeat_seconds * 1_000;
        this.#allowance = MESSAGES_BURST;
        this.#allowedAt = now;
        if (!this.#token) this.#opened();
        break;
      case "authenticated":
        this.#signedIn = true;
        this.client._emit("authenticated", frame.user);
        if (!this.#welcomed) this.#opened();
        this.#refresh = false;
        break;
      case "auth_expiring":
        this.#expiring(frame.seconds);
        break;
      case "subscribed":
        if (subscription) this.#views.set(frame.view, subscription);
        subscription?.subscribed(frame);
        break;
      case "snapshot":
      case "ready":
        if (!subscription) break;
        // After a change of rights the view has another name.
        this.#views.set(frame.view, subscription);
        subscription[/** @type {"snapshot" | "ready"} */ (frame.type)](frame);
        break;
      case "event":
        subscription?.event(frame);
        break;
      case "reset":
        subscription?.reset(frame);
        break;
      case "position":
        for (const known of this.subscriptions) known.reached(frame.position);
        break;
      case "pong":
        if (id === "probe") {
          clearTimeout(this.#probing);
          this.#probing = undefined;
          this.#become("live");
        } else if (id === this.#ping?.id) {
          const { position } = /** @type {{ position: string }} */ (this.#ping);
          this.#ping = null;
          for (const known of this.subscriptions) known.reached(position);
        }
        this.ask();
        break;
      case "unsubscribed":
        if (!subscription) break;
        this.#ids.delete(id);
        subscription.end({ code: frame.reason, message: `the server has ended the subscription: ${frame.reason}` });
        break;
      case "error":
        if (id && id === this.#ping?.id) {
          const { position } = /** @type {{ position: string }} */ (this.#ping);
          this.#ping = null;
          for (const known of this.subscriptions) known.reject(position, frame.message);
          this.ask();
        } else if (subscription) {
          this.#ids.delete(id);
          subscription.refused(frame.code, frame.message);
        }
        break;
      case "goaway": {
        const [least, most] = frame.retry_after_ms;
        const pauseMs = least + Math.random() * (most - least);
        this.#returnAt = now + pauseMs;
        // It says that it will close. If it does not, we do.
        this.#leaving = setTimeout(() => this.#lost(4000), pauseMs);
      }
    }
  }

  /** @param {number} seconds */
  #expiring(seconds) {
    // It comes a minute ahead. A token that does not last as long is renewed at half time, or we would do nothing else.
    const pauseMs = seconds >= 50 ? 0 : seconds * 500;
    const attempt = () => {
      this.renew(true).catch(() => {
        // Try again while the token lasts; when it has expired, the next connection asks for another.
        this.#renewing = setTimeout(attempt, 5_000);
      });
    };
    clearTimeout(this.#renewing);
    this.#renewing = setTimeout(attempt, pauseMs);
  }

  #tick() {
    const now = Date.now();
    const slept = now - this.#tickedAt > this.#heartbeatMs / 5 + PROBE_MS;
    this.#tickedAt = now;
    this.#heardAt = Math.min(this.#heardAt, now);
    const silentMs = now - this.#heardAt;
    if (slept) {
      // A frozen page or a sleeping machine. What was sent meanwhile may still be read, or the connection be gone.
      this.#become("stale");
      this.#probe();
    } else if (silentMs > 2 * this.#heartbeatMs) {
      this.#lost(0);
    } else if (silentMs > 1.2 * this.#heartbeatMs) {
      this.#become("stale");
      this.#probe();
    }
  }

  /** Find out soon whether the connection is alive. */
  #probe() {
    if (!this.#welcomed || this.#probing) return;
    if (!this.#transport?.send) {
      if (Date.now() - this.#heardAt > 1.2 * this.#heartbeatMs) this.#restart();
      return;
    }
    this.#probing = setTimeout(() => this.#lost(0), PROBE_MS);
    this.#send({ type: "ping", id: "probe" });
  }

  /** @param {Subscription} subscription @returns {Promise<void>} */
  async #subscribe(subscription) {
    if (!this.#welcomed || !this.#transport?.send || subscription.phase !== "idle") return;
    const generation = this.#generation;
    subscription.phase = "asked";
    if (!subscription.kinds) {
      try {
        subscription.kinds = await this.client._kinds(subscription.resource);
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 1_000 + Math.random() * 2_000));
        if (generation !== this.#generation || subscription.link !== this || subscription.phase !== "asked") return;
        subscription.phase = "idle";
        return this.#subscribe(subscription);
      }
      if (generation !== this.#generation || subscription.link !== this || subscription.phase !== "asked") return;
    }
    const id = `${++this.#number}`;
    const message = { type: "subscribe", id, ...subscription.request };
    if (new TextEncoder().encode(JSON.stringify(message)).length > MESSAGE_BYTES_MAX) {
      return subscription.end({ code: "bad_message", message: "the query is longer than 64 KiB" });
    }
    this.#ids.set(id, subscription);
    this.#send(message);
  }

  /** @param {Subscription} subscription */
  #unsubscribe(subscription) {
    for (const [id, known] of this.#ids) {
      if (known !== subscription) continue;
      this.#ids.delete(id);
      this.#send({ type: "unsubscribe", id });
    }
    for (const [view, known] of this.#views) if (known === subscription) this.#views.delete(view);
  }

  /** @param {Record<string, unknown>} message */
  #send(message) {
    this.#queue.push(JSON.stringify(message));
    this.#flush();
  }

  #flush() {
    if (this.#sending || !this.#transport?.send) return;
    const now = Date.now();
    this.#allowance = Math.min(MESSAGES_BURST, this.#allowance + (Math.max(0, now - this.#allowedAt) * MESSAGES_PER_SECOND) / 1_000);
    this.#allowedAt = now;
    while (this.#queue.length && this.#allowance >= 1) {
      this.#allowance--;
      this.#transport.send(/** @type {string} */ (this.#queue.shift()));
    }
    if (!this.#queue.length) return;
    this.#sending = setTimeout(() => {
      this.#sending = undefined;
      this.#flush();
    }, 1_000 / MESSAGES_PER_SECOND);
  }
}

/** @type {Record<number, string>} */
const REFUSALS = {
  4500: "the server did not understand this client",
  4501: "authentication failed",
  4503: "the session has ended, the key was deleted, or the account was deactivated",
  4509: "the server does not speak headwater.v1",
};

/** @param {string} token */
function authOf(token) {
  return { type: "auth", [token.startsWith("hw_") ? "api_key" : "token"]: token };
}

/** @param {string | null | undefined} token @returns {Record<string, string>} */
function credentials(token) {
  if (!token) return {};
  return token.startsWith("hw_") ? { "X-API-Key": token } : { Authorization: `Bearer ${token}` };
}

/** @param {number} ms @returns {AbortSignal} */
function timeout(ms) {
  return AbortSignal.timeout(ms);
}

// MongoDB's order of values, over their public JSON: by type first (the manual, "Comparison/Sort Order").

const EMPTY = 1;
const NULL = 2;
const NUMBER = 3;
const TEXT = 4;
const OBJECT = 5;
const ARRAY = 6;
const BINARY = 7;
const OBJECT_ID = 8;
const BOOLEAN = 9;
const DATE = 10;

const DECIMAL = /^-?(\d+\.?\d*|\.\d+)(E[+-]?\d+)?$/i;
const INSTANT = /^([+-]\d{6}|\d{4})-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * What the server sorts a document by. Of an array, which only a document that breaks its class's rules holds there,
 * it is the least element, or descending the greatest.
 * @param {Doc} document
 * @param {string} path
 * @param {boolean} down
 * @param {string[]} kinds
 * @returns {[rank: number, value: any]}
 */
function sortValue(document, path, down, kinds) {
  const found = valuesAt(document, path.split(".")).map((value) => ranked(value, kinds));
  return found.reduce((best, next) => (compareRanked(next, best) < 0 !== down ? next : best));
}

/** @param {any} value @param {string[]} path @returns {any[]} */
function valuesAt(value, path) {
  const [name, ...rest] = path;
  if (name === undefined) return Array.isArray(value) && value.length ? value : [value];
  if (Array.isArray(value)) return value.length ? value.flatMap((inner) => (Array.isArray(inner) ? [null] : valuesAt(inner, path))) : [null];
  return valuesAt(value?.[name], rest);
}

/** @param {any} value @param {string[]} kinds @returns {[rank: number, value: any]} */
function ranked(value, kinds) {
  switch (typeof value) {
    case "number":
      return [NUMBER, value];
    case "boolean":
      return [BOOLEAN, value];
    case "string":
      return rankedText(value, kinds);
    case "object":
      if (!value) break;
      if (!Array.isArray(value)) {
        return [OBJECT, Object.entries(value).map(([name, inner]) => [name, ranked(inner, kinds)])];
      }
      return value.length ? [ARRAY, value.map((inner) => ranked(inner, kinds))] : [EMPTY, 0];
  }
  return [NULL, 0];
}

/** @param {string} text @param {string[]} kinds @returns {[rank: number, value: any]} */
function rankedText(text, kinds) {
  for (const kind of kinds) {
    if (kind === "date-time" && INSTANT.test(text)) return [DATE, Date.parse(text)];
    if (kind === "object id" && /^[0-9a-f]{24}$/.test(text)) return [OBJECT_ID, text];
    if (kind === "uuid" && UUID.test(text)) return [BINARY, `000000016\x04${text}`];
    if (kind === "decimal" || kind === "integer") {
      if (DECIMAL.test(text)) return [NUMBER, text];
      if (/^-?(NaN|Infinity)$/.test(text)) return [NUMBER, Number(text.replace("-NaN", "NaN"))];
    }
    if (kind === "binary") {
      const bytes = atob(text);
      return [BINARY, `${String(bytes.length).padStart(9, "0")}\x00${bytes}`];
    }
  }
  return [TEXT, text];
}

/** @param {[rank: number, value: any]} a @param {[rank: number, value: any]} b @returns {number} */
function compareRanked([rank, a], [otherRank, b]) {
  if (rank !== otherRank) return rank - otherRank;
  if (rank === TEXT) return compareText(a, b);
  if (rank === NUMBER) return compareNumbers(a, b);
  if (rank === ARRAY) return compareLists(a, b, compareRanked);
  if (rank === OBJECT) {
    return compareLists(a, b, ([name, x], [otherName, y]) => x[0] - y[0] || compareText(name, otherName) || compareRanked(x, y));
  }
  return a < b ? -1 : Number(a > b);
}

/** @param {any[]} a @param {any[]} b @param {(a: any, b: any) => number} compare @returns {number} */
function compareLists(a, b, compare) {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const order = compare(a[i], b[i]);
    if (order) return order;
  }
  return a.length - b.length;
}

/** By code points, as UTF-8 orders them; `<` would put what needs two UTF-16 units too low. @param {string} a @param {string} b */
function compareText(a, b) {
  const least = Math.min(a.length, b.length);
  for (let i = 0; i < least; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return (x ^ 0xd800) < 0x800 !== (y ^ 0xd800) < 0x800 && x > 0xd7ff && y > 0xd7ff ? y - x : x - y;
  }
  return a.length - b.length;
}

/** Decimals are text, and exact. @param {number | string} a @param {number | string} b @returns {number} */
function compareNumbers(a, b) {
  if (typeof a === "number" && typeof b === "number") {
    return Number.isNaN(a) || Number.isNaN(b) ? Number(Number.isNaN(b)) - Number(Number.isNaN(a)) : Math.sign(a - b) || 0;
  }
  const x = Number(a);
  const y = Number(b);
  if (!Number.isFinite(x) || !Number.isFinite(y) || Math.sign(x) !== Math.sign(y)) return compareNumbers(x, y);
  const [digits, exponent] = scientific(a);
  const [otherDigits, otherExponent] = scientific(b);
  const order = exponent - otherExponent || (digits < otherDigits ? -1 : Number(digits > otherDigits));
  return x < 0 ? -order : order;
}

/** The significant digits of a number's size, and its power of ten. @param {number | string} number @returns {[string, number]} */
function scientific(number) {
  const text = typeof number === "string" ? number : Number.isInteger(number) ? String(BigInt(number)) : number.toFixed(100);
  const [mantissa = "", power = "0"] = text.replace("-", "").split(/e/i);
  const [whole = "", fraction = ""] = mantissa.split(".");
  const digits = (whole + fraction).replace(/^0+/, "");
  const leading = whole.length + fraction.length - digits.length;
  const trimmed = digits.replace(/0+$/, "");
  return [trimmed, trimmed ? Number(power) + whole.length - leading : -Infinity];
}
