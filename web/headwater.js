// @ts-check
// Live queries; headwater.d.ts documents them. Browsers load this file: at most 12 KB.

/** @import { Change, Doc, HeadwaterEvents, LiveEvent, LiveEvents, Options, Query, State, Trouble } from "./headwater.d.ts" */
/** @typedef {[rank: number, value: any][]} Key */
/** @typedef {{ document: Doc, etag: string, key: Key }} Entry */
/** @typedef {Record<string, string[]>} Kinds */

// The server allows 100 subscriptions, and 20 messages a second with bursts of 150.
const SUBSCRIPTIONS_MAX = 100;
const MESSAGES_BURST = 120;
const MESSAGE_MS = 66;
const MESSAGE_BYTES_MAX = 65_536;
const OPEN_MS = 15_000;
const PROBE_MS = 5_000;
const PAUSE_MS = 500;
const PAUSE_MS_MAX = 30_000;
const GOOD_MS = 10_000;
const SOCKET_AGAIN_MS = 300_000;
const SPARE_MAX = 1_000;
const SSE = "sse";
const WS = "websocket";

/** @template Events */
class Emitter {
  #listeners = new Map();

  /** @template {keyof Events} Name @param {Name} name @param {(value: Events[Name]) => void} listener */
  on(name, listener) {
    const known = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, known.add(listener));
    return () => void known.delete(listener);
  }

  /** @template {keyof Events} Name @param {Name} name @param {Events[Name]} value */
  _emit(name, value) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(value);
      } catch (error) {
        // The application's fault, which must be seen and must not stop the feed.
        (globalThis.reportError ?? console.error)(error);
      }
    }
  }
}

/** By name; one that is set again replaces the last. */
class Timers {
  #running = new Map();

  /** @param {string} name @param {number} ms @param {() => void} run */
  set(name, ms, run) {
    this.clear(name);
    this.#running.set(name, setTimeout(() => (this.#running.delete(name), run()), ms));
  }

  /** @param {string} name */
  has(name) {
    return this.#running.has(name);
  }

  /** @param {string[]} names All if none is given. */
  clear(...names) {
    for (const name of names.length ? names : [...this.#running.keys()]) {
      clearTimeout(this.#running.get(name));
      this.#running.delete(name);
    }
  }
}

/** @extends {Emitter<HeadwaterEvents>} */
export class Headwater extends Emitter {
  _transport;
  _socketFailures = 0;
  _heardAt = Date.now();
  /** @type {Link[]} */ #links = [];
  #subscriptions = new Map();
  _paths = new Map();
  #kinds = new Map();
  #tokens = new Map();
  /** @type {string | null | undefined} */ #token;
  /** @type {State} */ #told = "offline";
  #timers = new Timers();
  #closing = new AbortController();
  #refused = false;

  /** @param {string} [url] @param {Options} [options] */
  constructor(url = "", options = {}) {
    super();
    const { origin, pathname } = new URL(url.replace(/^ws/, "http") || "/", globalThis.location?.href);
    this._api = `${origin}${pathname.replace(/\/*(api\/v1\/*)?$/, "")}/api/v1`;
    this._options = options;
    this._transport = this.#Socket ? options.transport === SSE ? SSE : WS : SSE;
    const { signal } = this.#closing;
    for (const name of ["online", "offline"]) globalThis.addEventListener?.(name, this.#wake, { signal });
    for (const name of ["visibilitychange", "resume"]) globalThis.document?.addEventListener(name, this.#wake, { signal });
  }

  /** @returns {State} */
  get state() {
    const states = this.#links.map((link) => link.state);
    for (const state of /** @type {const} */ (["offline", "connecting", "stale", "live"])) if (states.includes(state)) return state;
    return "offline";
  }

  get lag() {
    return this.state === "live" ? Math.max(...this.#links.map((link) => link.lagMs)) : Date.now() - this._heardAt;
  }

  get #closed() {
    return this.#closing.signal.aborted;
  }

  /** @param {string} resource @param {Query} [query] */
  live(resource, { filter = {}, fields, sort = [], limit } = {}) {
    if (this.#closed) throw new Error("the client is closed");
    if (limit != null && !(Number.isInteger(limit) && limit > 0)) throw new RangeError("limit");
    const names = typeof sort === "string" ? sort.split(",").filter(Boolean) : sort;
    const key = JSON.stringify([resource, filter, fields, names, limit]);
    let subscription = this.#subscriptions.get(key);
    if (!subscription) {
      subscription = new Subscription(this, key, resource, [...names], { filter: JSON.parse(JSON.stringify(filter)), fields, limit });
      this.#subscriptions.set(key, subscription);
      if (!this.#refused) this._place(subscription);
    }
    const live = new Live(subscription);
    subscription.lives.add(live);
    return live;
  }

  /** @param {string} path @param {Omit<RequestInit, "body"> & { body?: any }} [init] */
  async fetch(path, init = {}) {
    let { body } = init;
    const headers = new Headers(init.headers);
    if (body && [Object.prototype, Array.prototype].includes(Object.getPrototypeOf(body))) {
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

  async renew() {
    this.#token = undefined;
    this.#kinds.clear();
    if (this.#refused) {
      this.#refused = false;
      this.#spread();
    } else {
      await Promise.all(this.#links.map((link) => link.renew(false)));
    }
  }

  close() {
    if (this.#closed) return;
    this.#closing.abort();
    this.#timers.clear();
    for (const subscription of [...this.#subscriptions.values()]) subscription.end(null);
    for (const link of this.#links.splice(0)) link.close();
    this._tell();
  }

  /** @param {Event} event */
  #wake = ({ type }) => {
    if (globalThis.document?.visibilityState === "hidden") return;
    for (const link of this.#links) link.wake(type);
  };

  _tell() {
    const { state } = this;
    if (state === this.#told) return;
    this.#told = state;
    this._emit("state", state);
  }

  /** One call at a time, whoever asks. @param {boolean} refresh */
  _getToken(refresh) {
    let asked = this.#tokens.get(refresh);
    if (!asked) {
      asked = (async () => (this.#token = (await this._options.getToken?.({ refresh })) ?? null))();
      this.#tokens.set(refresh, asked);
      const done = () => this.#tokens.delete(refresh);
      asked.then(done, done);
    }
    return asked;
  }

  /** How values are compared, which their JSON does not tell. @param {string} resource @param {boolean} [anew] */
  _kinds(resource, anew) {
    let kinds = this.#kinds.get(resource);
    if (!kinds || anew) {
      kinds = this.fetch(`schemas/${resource}`, { signal: AbortSignal.timeout(OPEN_MS) }).then(async (response) => {
        if (response.status === 429 || response.status >= 500) throw new Error(`${response.status}`);
        const { order = {}, path } = response.ok ? await response.json() : {};
        this._paths.set(resource, path);
        return order;
      });
      this.#kinds.set(resource, kinds);
      kinds.catch(() => this.#kinds.delete(resource));
    }
    return kinds;
  }

  /** @param {Subscription} subscription @param {number} [failures] @param {State} [state] */
  _place(subscription, failures = 0, state = "connecting") {
    if (this.#closed) return;
    let link = this.#links.find((known) => known.takes(subscription));
    if (!link) this.#links.push((link = new Link(this, failures, state)));
    link.add(subscription);
    this._tell();
  }

  /** @param {Subscription} subscription */
  _forget(subscription) {
    this.#subscriptions.delete(subscription.key);
    const { link } = subscription;
    if (!link) return;
    link.remove(subscription);
    // The first one stays, for the next query.
    if (!link.subscriptions.size && (this._transport === SSE || link !== this.#links[0])) {
      this.#links = this.#links.filter((known) => known !== link);
      link.close();
    }
    this._tell();
  }

  /** @param {"websocket" | "sse"} transport @param {number} failures Both may fail by turns. */
  _switch(transport, failures) {
    if ((this._options.transport ?? "auto") !== "auto" || this._transport === transport || !this.#Socket) return;
    this._transport = transport;
    this._socketFailures = 0;
    this.#spread(failures);
    this.#timers.clear();
    if (transport === SSE) this.#trySocketLater();
  }

  #spread(failures = 0) {
    const state = this.state === "live" ? "stale" : this.state;
    for (const link of this.#links.splice(0)) {
      link.subscriptions.clear();
      link.close();
    }
    for (const subscription of this.#subscriptions.values()) this._place(subscription, failures, state);
    this._tell();
  }

  #trySocketLater() {
    this.#timers.set(WS, SOCKET_AGAIN_MS, () => this.#trySocket());
  }

  #trySocket() {
    const socket = this._socket();
    this.#timers.set(WS, OPEN_MS, () => socket.close());
    socket.onerror = () => {};
    socket.onmessage = () => {
      socket.onclose = null;
      socket.close();
      this._switch(WS, 0);
    };
    socket.onclose = () => this._transport === SSE && !this.#closed && this.#trySocketLater();
  }

  get #Socket() {
    return /** @type {any} */ (this._options.WebSocket ?? globalThis.WebSocket);
  }

  /** @returns {WebSocket} */
  _socket() {
    return new this.#Socket(`${this._api.replace(/^http/, "ws")}/ws`, "headwater.v1");
  }

  /** The server wants no more of this client. @param {Trouble} trouble */
  _refuse(trouble) {
    if (this.#refused) return;
    this.#refused = true;
    for (const link of this.#links) link.close();
    this._tell();
    this._emit("error", trouble);
  }
}

/** @extends {Emitter<LiveEvents>} */
export class Live extends Emitter {
  #subscription;

  /** @param {Subscription} subscription */
  constructor(subscription) {
    super();
    this.#subscription = subscription;
  }

  get items() {
    return this.#subscription.items;
  }

  get complete() {
    return this.#subscription.complete;
  }

  get state() {
    return this.#subscription.state;
  }

  get position() {
    return this.#subscription.position;
  }

  get error() {
    return this.#subscription.trouble;
  }

  get ready() {
    return this.caughtUp(null).then(() => this.items);
  }

  /** @param {string} id */
  etag(id) {
    return this.#subscription.entries.get(id)?.etag;
  }

  /** @param {string | null} position */
  caughtUp(position) {
    return this.#subscription.caughtUp(position ?? "");
  }

  close() {
    const { lives } = this.#subscription;
    if (lives.delete(this) && !lives.size) this.#subscription.end(null);
  }
}

/** A subscription and its result, shared by equal queries. */
class Subscription {
  lives = new Set();
  /** @type {Link | null} */ link = null;
  /** They have this view, by another query. */ refusedBy = new WeakSet();
  /** @type {"idle" | "asked" | "snapshot" | "recovering" | "ready" | "ended"} */ phase = "idle";
  /** @type {string | undefined} */ view;
  /** Everything up to here is in `#sorted`. @type {string | undefined} */ position;
  /** @type {Trouble | null} */ trouble = null;
  /** @type {Kinds | undefined} */ kinds;
  entries = new Map();
  /** In order: all that matches up to `#edge`. @type {Entry[]} */ #sorted = [];
  /** Null when all is known. @type {Key | null} */ #edge = null;
  /** @type {{ document: Doc, etag: string }[]} */ #pages = [];
  /** @type {Doc[] | null} */ #items = null;
  /** @type {LiveEvent[]} */ #events = [];
  /** @type {{ position: string, resolve: (_: void) => void, reject: (error: Error) => void }[]} */ #waiters = [];
  /** @type {State} */ #told = "connecting";
  #timers = new Timers();
  #seen = false;
  #refilledAt = 0;
  #refillMs = 0;

  /** @param {Headwater} client @param {string} key @param {string} resource @param {string[]} sort @param {Query} query */
  constructor(client, key, resource, sort, { filter, fields, limit }) {
    this.client = client;
    this.key = key;
    this.resource = resource;
    this.filter = filter;
    this.sort = sort;
    this.limit = limit ?? 1_000;
    this.limited = Boolean(limit);
    // Documents that leave are replaced from these.
    this.spare = Math.min(Math.max(20, this.limit), SPARE_MAX);
    this.order = sort.map((name) => ({ path: name.replace(/^-/, ""), down: name[0] === "-" }));
    // As the server breaks ties.
    if (!this.order.some(({ path }) => path === "id")) this.order.push({ path: "id", down: this.order.at(-1)?.down ?? false });
    const tops = this.order.map(({ path }) => path.split(".")[0]);
    // We must be told of all that the order depends on. Any write moves the bookkeeping, which alone is no event.
    const all = !fields || tops.some((name) => /^(revision|updated_(at|by))$/.test(name));
    this.fields = all ? undefined : [...new Set([...fields, ...tops])].sort();
    this.viewKey = JSON.stringify([resource, filter, this.fields]);
  }

  get items() {
    return (this.#items ??= this.#sorted.slice(0, this.limit).map(({ document }) => document));
  }

  get complete() {
    return this.#seen && !this.#edge && this.#sorted.length <= this.limit;
  }

  /** @returns {State} */
  get state() {
    const { link } = this;
    if (!link || link.state === "offline") return "offline";
    if (this.phase === "ready" && link.state === "live" && !this.#short) return "live";
    return this.#seen ? "stale" : "connecting";
  }

  /** Documents have left, and others are not known. */
  get #short() {
    return this.#edge && this.#sorted.length < this.limit;
  }

  /** @returns {Record<string, any>} */
  get request() {
    const { resource, filter, sort, fields, view, position } = this;
    const since = view && position ? { view, position } : undefined;
    return { resource, filter, sort, fields, limit: this.limit + this.spare, since };
  }

  get address() {
    const { resource, filter, since, ...rest } = this.request;
    const query = new URLSearchParams({ ...rest, filter: JSON.stringify(filter) });
    if (!rest.fields) query.delete("fields");
    if (since) query.set("since", `${since.view}@${since.position}`);
    return `${this.client._paths.get(resource) ?? resource}?${query}`;
  }

  /** @template {keyof LiveEvents} Name @param {Name} name @param {LiveEvents[Name]} value */
  #emit(name, value) {
    for (const live of [...this.lives]) live._emit(name, value);
  }

  tell() {
    const { state } = this;
    if (state === this.#told) return;
    this.#told = state;
    this.#emit("state", state);
  }

  /** Nothing of the connection holds any more. */
  rest() {
    this.phase = "idle";
    this.#pages = [];
    this.#timers.clear("refill");
    this.tell();
  }

  /** @param {any} frame */
  subscribed({ view, recovered }) {
    this.#named(view);
    if (recovered) this.phase = "recovering";
    else this.#begin();
  }

  /** @param {string} view Another one is of another user, or another version of the class. */
  #named(view) {
    const known = this.view;
    this.view = view;
    if (!known || view === known) return;
    this.#clear();
    const before = JSON.stringify(this.kinds);
    const changed = (/** @type {Kinds} */ kinds) => {
      if (JSON.stringify(kinds) === before) return;
      this.kinds = kinds;
      this.position = undefined;
      this.link?.again(this);
    };
    this.client._kinds(this.resource, true).then(changed, () => {});
  }

  #begin() {
    this.phase = "snapshot";
    this.position = undefined;
    this.#pages = [];
    this.tell();
  }

  /** @param {any} frame */
  snapshot({ view, items }) {
    if (this.phase !== "snapshot") return;
    this.#named(view);
    for (const item of items) this.#pages.push(item);
  }

  /** @param {any} frame */
  ready({ position, complete }) {
    if (this.phase === "snapshot") {
      this.#sorted = this.#pages.map((item) => ({ ...item, key: this.#keyOf(item.document) }));
      this.#sorted.sort((a, b) => this.#compare(a.key, b.key));
      this.entries = new Map(this.#sorted.map((entry) => [entry.document.id, entry]));
      this.#edge = complete ? null : this.#sorted.at(-1)?.key ?? null;
      this.#pages = [];
      this.#refillMs = Date.now() - this.#refilledAt;
      this.#changed(null);
    } else if (this.phase !== "recovering") {
      return;
    }
    this.phase = "ready";
    this.#seen = true;
    this.reached(position);
    this.#settle();
  }

  /** @param {LiveEvent} event */
  event(event) {
    if (!/^re/.test(this.phase) || (this.position && event.position <= this.position)) return;
    const { id, document, etag = "" } = event;
    const old = this.entries.get(id);
    let place = Infinity;
    if (old) {
      place = this.#find(old.key);
      this.#sorted.splice(place, 1);
      this.entries.delete(id);
    }
    if (document) {
      const entry = { document, etag, key: this.#keyOf(document) };
      // Beyond the edge are documents that we do not know.
      if (!this.#edge || this.#compare(entry.key, this.#edge) <= 0) {
        const at = this.#find(entry.key);
        this.#sorted.splice(at, 0, entry);
        this.entries.set(id, entry);
        place = Math.min(place, at);
      }
    }
    // The window must not grow with the result.
    const most = this.limit + this.spare;
    if (this.#sorted.length > 2 * most) {
      for (const { document } of this.#sorted.splice(most)) this.entries.delete(document.id);
      this.#edge = this.#sorted[most - 1].key;
    }
    this.position = event.position;
    this.#emit("event", event);
    if (place < this.limit) this.#changed(event);
    if (this.phase === "ready") this.#settle();
  }

  /** Everything up to `position` is here. @param {string} position */
  reached(position) {
    if (this.phase !== "ready") return;
    if (!this.position || position > this.position) this.position = position;
    this.#answer();
  }

  #answer() {
    const { position = "" } = this;
    if (this.phase === "ready" && !this.#short) this.#take((waiter) => waiter.position <= position).forEach(({ resolve }) => resolve());
  }

  /** @param {(waiter: { position: string }) => boolean} due */
  #take(due) {
    const taken = this.#waiters.filter(due);
    this.#waiters = this.#waiters.filter((waiter) => !due(waiter));
    return taken;
  }

  /** The latest position that is waited for. */
  get awaited() {
    return this.#waiters.reduce((latest, { position }) => (position > latest ? position : latest), "");
  }

  /** @param {string | null} position Null: all that wait. @param {string} message */
  reject(position, message) {
    for (const { reject } of this.#take((waiter) => !position || waiter.position === position)) reject(new Error(message));
  }

  /** @param {string} position @returns {Promise<void>} */
  caughtUp(position) {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ position, resolve, reject });
      if (this.phase === "ended") return this.reject(null, this.trouble?.message ?? CLOSED);
      if (position && this.position && position.length !== this.position.length) return this.reject(position, "not a position");
      this.#answer();
      this.link?.ask();
    });
  }

  /** @param {any} frame */
  reset({ reason }) {
    // Else it stays, as stale, until the next result.
    if (reason === "access_changed") this.#clear();
    if (this.phase === "asked") this.position = undefined;
    else this.#begin();
  }

  #clear() {
    this.#sorted = [];
    this.#edge = null;
    this.entries.clear();
    this.#seen = false;
    this.#changed(null);
  }

  /** Go on: live, or in need of documents. */
  #settle() {
    this.#answer();
    if (!this.#short) {
      this.#timers.clear("refill");
    } else if (!this.#timers.has("refill")) {
      // Many that leave at once must not become as many queries.
      const pauseMs = Math.min(PAUSE_MS_MAX, Math.max(1_000, 10 * this.#refillMs));
      this.#timers.set("refill", Math.max(0, this.#refilledAt + pauseMs - Date.now()), () => {
        this.spare = Math.min(SPARE_MAX, this.spare * 2);
        this.#refilledAt = Date.now();
        this.position = undefined;
        this.link?.again(this);
      });
    }
    this.link?.ask();
    this.tell();
  }

  /** @param {string} code @param {string} message */
  refused(code, message) {
    const { link } = this;
    // HEADWATER_SNAPSHOT_MAX.
    const most = code === "bad_query" && Number(/^(?:query\.)?limit: .*?(\d+)( is expected)?$/.exec(message)?.[1]);
    if (most && (!this.limited || (this.spare && most >= this.limit))) {
      this.limit = Math.min(this.limit, most);
      this.limited = true;
      this.spare = most - this.limit;
      link?.again(this);
    } else if (link && /^(already_subscribed|too_many_subscriptions)$/.test(code)) {
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
    this.rest();
    this.phase = "ended";
    this.trouble = trouble;
    this.reject(null, trouble?.message ?? CLOSED);
    if (trouble?.code === "access_changed") this.#clear();
    if (!trouble) this.#timers.clear();
    if (trouble) this.#emit("error", trouble);
  }

  /** @param {LiveEvent | null} event Null: a whole result took the place of another. */
  #changed(event) {
    this.#items = null;
    if (event) this.#events.push(event);
    else this.#events = [];
    if (this.#timers.has("change")) return;
    const change = () => this.#emit("change", { items: this.items, events: this.#events.splice(0) });
    this.#timers.set("change", 16, change);
    // Timers of a hidden page may be a minute late.
    if (globalThis.document?.hidden) queueMicrotask(() => (this.#timers.clear("change"), change()));
  }

  /** @param {Doc} document @returns {Key} */
  #keyOf(document) {
    return this.order.map(({ path, down }) => sortValue(document, path, down, this.kinds?.[path] ?? []));
  }

  /** @param {Key} a @param {Key} b */
  #compare(a, b) {
    for (let i = 0; i < a.length; i++) {
      const order = compareRanked(a[i], b[i]);
      if (order) return this.order[i].down ? -order : order;
    }
    return 0;
  }

  /** The place of the first entry that is not before `key`. @param {Key} key */
  #find(key) {
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#compare(this.#sorted[middle].key, key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

const CLOSED = "the live query is closed";

/** A WebSocket for up to 100 subscriptions, or an event stream for one. */
class Link {
  subscriptions = new Set();
  lagMs = 0;
  /** By the ids of the protocol, which are used once. */ #ids = new Map();
  #views = new Map();
  /** @type {{ close: () => void, send?: (text: string) => void } | null} */ #transport = null;
  #timers = new Timers();
  #attempt = 0;
  #number = 0;
  #welcomed = false;
  #refresh = false;
  /** @type {string | null} */ #token = null;
  #heartbeatMs = 25_000;
  #openedAt = 0;
  #heardAt = 0;
  #tickedAt = 0;
  /** @type {string[]} */ #queue = [];
  #paidAt = 0;
  /** @type {{ id: string, position: string } | null} */ #ping = null;
  #returnAt = 0;
  #quickestMs = Infinity;
  #closed = false;

  /** @param {Headwater} client @param {number} failures Attempts since the last good connection. @param {State} state */
  constructor(client, failures, state) {
    this.client = client;
    this.failures = failures;
    this.state = state;
    this.#later(failures ? this.#pauseMs : 0);
  }

  /** Exponential, with full jitter. */
  get #pauseMs() {
    return Math.random() * Math.min(PAUSE_MS_MAX, PAUSE_MS * 2 ** this.failures);
  }

  /** @param {Subscription} subscription */
  takes(subscription) {
    if (this.client._transport === SSE || this.subscriptions.size >= SUBSCRIPTIONS_MAX || subscription.refusedBy.has(this)) return false;
    return ![...this.subscriptions].some(({ viewKey }) => viewKey === subscription.viewKey);
  }

  /** @param {Subscription} subscription */
  add(subscription) {
    this.subscriptions.add(subscription);
    subscription.link = this;
    subscription.rest();
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
    if (this.client._transport === SSE) return this.#restart();
    this.#unsubscribe(subscription);
    subscription.rest();
    this.#subscribe(subscription);
  }

  close() {
    this.#closed = true;
    this.#drop();
    this.state = "offline";
    for (const subscription of [...this.subscriptions]) subscription.tell();
  }

  /** @param {string} why The name of a browser's event. */
  wake(why) {
    this.failures = 0;
    if (why === "offline") {
      if (this.#transport) this.#lost(0);
      this.#become("offline");
    } else if (this.#transport) {
      this.#probe();
    } else if (this.#timers.has("connect")) {
      // Not all at the same moment: a whole office may be back.
      this.#later(Math.random() * 1_000);
    }
  }

  /** @param {boolean} refresh */
  async renew(refresh) {
    const transport = this.#transport;
    const token = await this.client._getToken(refresh);
    if (!transport || this.#transport !== transport) return;
    if (!token || !transport.send || !this.#welcomed) return this.#restart();
    this.#token = token;
    this.#send(authOf(token));
  }

  ask() {
    if (this.#ping || this.state !== "live" || !this.#transport?.send) return;
    let position = "";
    for (const { phase, awaited } of this.subscriptions) if (phase === "ready" && awaited > position) position = awaited;
    if (!position) return;
    this.#ping = { id: `p${++this.#number}`, position };
    this.#send({ type: "ping", ...this.#ping });
    this.#probe();
  }

  /** @param {(known: Subscription, position: string) => void} tell */
  #pinged(tell) {
    const { position = "" } = this.#ping ?? {};
    this.#ping = null;
    for (const known of this.subscriptions) tell(known, position);
    this.ask();
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
    if (!this.#closed) this.#timers.set("connect", pauseMs, () => this.#connect());
  }

  async #connect() {
    const attempt = ++this.#attempt;
    this.#timers.set("open", OPEN_MS, () => this.#lost(0));
    try {
      const token = await this.client._getToken(this.#refresh);
      // Closed, or woken up, meanwhile.
      if (attempt !== this.#attempt) return;
      this.#token = token;
      this.#openedAt = Date.now();
      if (this.client._transport === SSE) this.#openStream();
      else this.#openSocket();
    } catch {
      if (attempt === this.#attempt) this.#lost(0);
    }
  }

  #openSocket() {
    const socket = this.client._socket();
    const mine = () => this.#transport === socket;
    this.#transport = socket;
    // First: messages are taken in order.
    socket.onopen = () => mine() && this.#token && socket.send(JSON.stringify(authOf(this.#token)));
    socket.onmessage = ({ data }) => {
      try {
        if (mine()) this.#hear(JSON.parse(data));
      } catch {
        // To go on without a frame would be stale in silence.
        this.#lost(0);
      }
    };
    socket.onerror = () => {};
    socket.onclose = ({ code }) => mine() && this.#lost(code);
  }

  // Not an EventSource: that would need a ticket for each attempt.
  async #openStream() {
    const [subscription] = this.subscriptions;
    const control = new AbortController();
    const transport = { close: () => control.abort() };
    const mine = () => this.#transport === transport;
    this.#transport = transport;
    let code = 0;
    try {
      subscription.kinds ??= await this.client._kinds(subscription.resource);
      if (!mine()) return;
      const headers = { Accept: "text/event-stream", ...credentials(this.#token) };
      const url = `${this.client._api}/${subscription.address}`;
      const answer = await fetch(url, { headers, signal: control.signal, cache: "no-store" });
      if (!answer.ok || !answer.body) {
        const { status } = answer;
        const problem = await answer.json().catch(() => ({}));
        if (status === 401) {
          code = 4501;
        } else if (mine() && /^4(?!08|25|29)/.test(`${status}`)) {
          this.#drop();
          const faults = problem.errors?.map((/** @type {any} */ { loc, msg }) => `${loc.join(".")}: ${msg}`).join("; ");
          subscription.refused(faults ? "bad_query" : problem.code ?? status, faults ?? problem.detail ?? "refused");
        }
        return;
      }
      if (!mine()) return;
      this.#ids.set(SSE, subscription);
      const { view, position } = subscription;
      if (view) this.#views.set(view, subscription);
      subscription.phase = view && position ? "recovering" : "snapshot";
      this.#opened();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        const blocks = (text + value).split("\n\n");
        text = blocks.pop() ?? "";
        for (const block of blocks) {
          const data = /^data: (.*)$/m.exec(block)?.[1];
          if (!data || !mine()) continue;
          const frame = JSON.parse(data);
          if (frame.type === "error") code = frame.code === "forbidden" ? 4503 : 4001;
          this.#hear(frame);
        }
      }
    } catch {
      // Broken off.
    } finally {
      if (mine()) this.#lost(code);
    }
  }

  /** As whom we wanted. */
  #opened() {
    this.#timers.clear("open");
    this.#welcomed = true;
    this.#refresh = false;
    this.#quickestMs = Infinity;
    this.#heardAt = Date.now();
    this.#tick();
    this.#become("live");
    for (const subscription of this.subscriptions) this.#subscribe(subscription);
  }

  #drop() {
    this.#attempt++;
    const transport = this.#transport;
    this.#transport = this.#ping = null;
    this.#timers.clear();
    this.#queue = [];
    this.#ids.clear();
    this.#views.clear();
    this.#welcomed = false;
    this.#tickedAt = 0;
    transport?.close();
    for (const subscription of [...this.subscriptions]) subscription.rest();
  }

  /** @param {number} code Of the WebSocket's close; 0: we gave it up. */
  #lost(code) {
    const { client } = this;
    const welcomed = this.#welcomed;
    const unheard = !welcomed && this.#transport && code !== 1012 && code < 4000;
    const returnMs = this.#returnAt && Math.max(1, this.#returnAt - Date.now());
    this.#returnAt = 0;
    this.#drop();
    if (welcomed && Date.now() - this.#openedAt > GOOD_MS) this.failures = 0;
    // Another user's token is refused here, and good for a new connection.
    const mayRefresh = this.#token && (welcomed || !this.#refresh) && client._options.getToken;
    if (code >= 4500 && code < 5000 && !(code === 4501 && mayRefresh)) {
      return client._refuse({ code, message: `the server has refused this client: ${code}` });
    }
    let pauseMs = returnMs || this.#pauseMs;
    if (code === 4001 || code === 4501) {
      this.#refresh = true;
      if (!this.failures) pauseMs = 0;
    }
    this.failures++;
    if (globalThis.navigator?.onLine === false || this.failures > 3) this.#become("offline");
    else if (this.state === "live") this.#become("stale");
    this.#later(pauseMs);
    if (unheard && client._transport === SSE) client._switch(WS, this.failures);
    else if (unheard && ++client._socketFailures >= 2) client._switch(SSE, this.failures);
  }

  #restart() {
    this.#drop();
    this.#become("stale");
    this.#later(0);
  }

  /** @param {any} frame */
  #hear(frame) {
    const { client, subscriptions } = this;
    const { type, id, view } = frame;
    const now = Date.now();
    this.#heardAt = client._heardAt = now;
    const at = frame.at ?? frame.as_of;
    if (at) {
      const ms = now - Date.parse(at);
      this.#quickestMs = Math.min(this.#quickestMs, ms);
      this.lagMs = ms - this.#quickestMs;
    }
    if (this.#welcomed && !this.#transport?.send) this.#become("live");
    const subscription = type === "event" || type === "reset" ? this.#views.get(view) : this.#ids.get(id);
    switch (type) {
      case "welcome":
        client._socketFailures = 0;
        this.#heartbeatMs = frame.heartbeat_seconds * 1_000;
        this.#paidAt = 0;
        if (!this.#token) this.#opened();
        break;
      case "authenticated":
        client._emit("authenticated", frame.user);
        if (!this.#welcomed) this.#opened();
        break;
      case "auth_expiring":
        // The next one may last no longer.
        this.#renewIn(500 + frame.seconds * 500);
        break;
      case "subscribed":
      case "snapshot":
      case "ready":
        // After a change of rights the view has another name.
        if (!subscription) break;
        this.#views.set(view, subscription);
        subscription[/** @type {"ready"} */ (type)](frame);
        break;
      case "event":
      case "reset":
        subscription?.[/** @type {"reset"} */ (type)](frame);
        break;
      case "position":
        for (const known of subscriptions) known.reached(frame.position);
        break;
      case "pong":
        if (id === "probe") {
          this.#timers.clear(id);
          this.#become("live");
        } else {
          this.#pinged((known, position) => known.reached(position));
        }
        break;
      case "unsubscribed":
        this.#ids.delete(id);
        subscription?.end({ code: frame.reason, message: `ended by the server: ${frame.reason}` });
        break;
      case "error":
        if (id?.[0] === "p") {
          this.#pinged((known, position) => known.reject(position, frame.message));
        } else if (subscription) {
          this.#ids.delete(id);
          subscription.refused(frame.code, frame.message);
        }
        break;
      case "goaway": {
        const [least, most] = frame.retry_after_ms;
        const pauseMs = least + Math.random() * (most - least);
        this.#returnAt = now + pauseMs;
        this.#timers.set("leave", pauseMs, () => this.#lost(4000));
      }
    }
  }

  /** @param {number} pauseMs */
  #renewIn(pauseMs) {
    this.#timers.set("renew", pauseMs, () => this.renew(true).catch(() => this.#welcomed && this.#renewIn(5_000)));
  }

  #tick() {
    const everyMs = this.#heartbeatMs / 5;
    this.#timers.set("tick", everyMs, () => this.#tick());
    const now = Date.now();
    const slept = this.#tickedAt && now - this.#tickedAt > everyMs + PROBE_MS;
    this.#tickedAt = now;
    this.#heardAt = Math.min(this.#heardAt, now);
    const silentMs = now - this.#heardAt;
    // After a sleep, old frames may still come.
    if (slept || silentMs > 1.2 * this.#heartbeatMs) {
      this.#become("stale");
      this.#probe();
    }
  }

  #probe() {
    if (!this.#welcomed || this.#timers.has("probe")) return;
    if (this.#transport?.send) {
      this.#timers.set("probe", PROBE_MS, () => this.#lost(0));
      this.#send({ type: "ping", id: "probe" });
    } else if (Date.now() - this.#heardAt > 1.2 * this.#heartbeatMs) {
      this.#restart();
    }
  }

  /** @param {Subscription} subscription */
  async #subscribe(subscription) {
    if (!this.#welcomed || !this.#transport?.send || subscription.phase !== "idle") return;
    const attempt = this.#attempt;
    while (!subscription.kinds) {
      subscription.phase = "asked";
      try {
        subscription.kinds = await this.client._kinds(subscription.resource);
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 1_000 + Math.random() * 2_000));
      }
      if (attempt !== this.#attempt || subscription.link !== this || subscription.phase !== "asked") return;
    }
    subscription.phase = "asked";
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

  /** @param {object} message */
  #send(message) {
    this.#queue.push(JSON.stringify(message));
    if (!this.#timers.has("send")) this.#flush();
  }

  #flush() {
    const now = Date.now();
    // Each message costs its share of a second, and so many may be sent on credit.
    this.#paidAt = Math.min(now + MESSAGE_MS, Math.max(this.#paidAt, now - MESSAGES_BURST * MESSAGE_MS));
    for (; this.#queue.length && this.#paidAt <= now; this.#paidAt += MESSAGE_MS) this.#transport?.send?.(this.#queue.shift() ?? "");
    if (this.#queue.length) this.#timers.set("send", MESSAGE_MS, () => this.#flush());
  }
}

/** @param {string} token */
const isKey = (token) => token.startsWith("hw_");

/** @param {string} token */
const authOf = (token) => ({ type: "auth", [isKey(token) ? "api_key" : "token"]: token });

/** @param {string | null} token @returns {Record<string, string>} */
const credentials = (token) => (!token ? {} : isKey(token) ? { "X-API-Key": token } : { Authorization: `Bearer ${token}` });

// MongoDB's "Comparison/Sort Order", over public JSON.
const [EMPTY, NULL, NUMBER, TEXT, OBJECT, ARRAY, BINARY, OBJECT_ID, BOOLEAN, DATE] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

/**
 * Of an array it is the least element, or descending the greatest.
 * @param {Doc} document @param {string} path @param {boolean} down @param {string[]} kinds
 */
function sortValue(document, path, down, kinds) {
  const found = valuesAt(document, path.split(".")).map((value) => ranked(value, kinds));
  return found.reduce((best, next) => (compareRanked(next, best) < 0 !== down ? next : best));
}

/** @param {any} value @param {string[]} path @returns {any[]} */
function valuesAt(value, path) {
  if (!Array.isArray(value)) return path.length ? valuesAt(value?.[path[0]], path.slice(1)) : [value ?? null];
  if (!path.length) return value.length ? value : [undefined];
  return value.length ? value.flatMap((inner) => (Array.isArray(inner) ? [null] : valuesAt(inner, path))) : [null];
}

/** @param {any} value @param {string[]} kinds @returns {[rank: number, value: any]} */
function ranked(value, kinds) {
  if (typeof value === "number") return [NUMBER, value];
  if (typeof value === "boolean") return [BOOLEAN, value];
  if (typeof value === "string") return rankedText(value, kinds);
  if (!value) return [value === null ? NULL : EMPTY, 0];
  if (Array.isArray(value)) return [ARRAY, value.map((inner) => ranked(inner, kinds))];
  return [OBJECT, Object.entries(value).map(([name, inner]) => [[TEXT, sortable(name)], ranked(inner, kinds)])];
}

/** @param {string} text @param {string[]} kinds @returns {[rank: number, value: any]} */
function rankedText(text, kinds) {
  for (const kind of kinds) {
    if (kind === "date-time" && /^[+-]?\d+-\d\d-\d\dT[\d:.]+Z$/.test(text)) return [DATE, Date.parse(text)];
    if (kind === "object id" && /^[\da-f]{24}$/.test(text)) return [OBJECT_ID, text];
    // The digits of an id, or a decimal too many.
    if (kind === "decimal" || (kind === "integer" && !kinds.includes("string"))) {
      if (/^-?\d+(\.\d+)?(E[+-]?\d{1,4})?$/.test(text)) return [NUMBER, text];
      if (/^-?(NaN|Infinity)$/.test(text)) return [NUMBER, Number(text)];
    }
    // By length, then subtype, then bytes.
    if (kind === "uuid" && /^[\da-f-]{36}$/.test(text)) return [BINARY, `000000016\x04${text}`];
    if (kind === "binary") {
      try {
        const bytes = atob(text);
        return [BINARY, `${String(bytes.length).padStart(9, "0")}\x00${bytes}`];
      } catch {}
    }
  }
  return [TEXT, sortable(text)];
}

/** @param {[rank: number, value: any]} a @param {[rank: number, value: any]} b @returns {number} */
function compareRanked([rank, a], [otherRank, b]) {
  if (rank !== otherRank) return rank - otherRank;
  if (rank === NUMBER) return compareNumbers(a, b);
  if (rank === ARRAY) return compareLists(a, b, compareRanked);
  if (rank !== OBJECT) return a < b ? -1 : Number(a > b);
  return compareLists(a, b, ([name, x], [otherName, y]) => x[0] - y[0] || compareRanked(name, otherName) || compareRanked(x, y));
}

/** @param {any[]} a @param {any[]} b @param {(a: any, b: any) => number} compare */
function compareLists(a, b, compare) {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const order = compare(a[i], b[i]);
    if (order) return order;
  }
  return a.length - b.length;
}

/** For `<` to compare as UTF-8 does, and not as UTF-16. @param {string} text */
function sortable(text) {
  return text.replace(/[\ud800-\uffff]/g, (unit) => String.fromCharCode(unit.charCodeAt(0) + (unit < "\ue000" ? 0x2000 : -0x800)));
}

/** Decimals are text, and exact. @param {any} a @param {any} b */
function compareNumbers(a, b) {
  const odd = [a, b].some((number) => typeof number === "number" && !isFinite(number));
  if (odd || typeof a + typeof b === "numbernumber") return a < b ? -1 : a > b ? 1 : Number(b !== b) - Number(a !== a);
  const [x, power] = scientific(a);
  const [y, otherPower] = scientific(b);
  const least = Math.min(power, otherPower);
  const order = x * 10n ** BigInt(power - least) - y * 10n ** BigInt(otherPower - least);
  return order < 0n ? -1 : Number(order > 0n);
}

/** @param {any} number @returns {[bigint, number]} */
function scientific(number) {
  const text = Number.isInteger(number) ? BigInt(number) : (number.toFixed?.(100) ?? number);
  const [mantissa, power = 0] = String(text).split(/e/i);
  const [whole, fraction = ""] = mantissa.split(".");
  return [BigInt(whole + fraction), Number(power) - fraction.length];
}
