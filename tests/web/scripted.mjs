// A server of the live protocol in this process, on a clock that only moves when a test moves it.
//
// It keeps every state that its documents ever had, so that a client's result can be held against the result at the
// position that the client says it has.

const real = { setImmediate, setTimeout, clearTimeout, setInterval, clearInterval, now: Date.now, fetch: globalThis.fetch };

/** mulberry32: a small generator that a seed repeats. */
export function chance(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { next, below: (limit) => Math.floor(next() * limit), pick: (from) => from[Math.floor(next() * from.length)] };
}

/** Timers and `Date.now` of the client and the server. */
export class Clock {
  #now = 1_800_000_000_000;
  #timers = new Map();
  #number = 0;

  constructor() {
    const add = (again) => (run, ms = 0, ...rest) => {
      const delay = Math.max(again ? 1 : 0, Number(ms) || 0);
      this.#timers.set(++this.#number, { run: () => run(...rest), at: this.#now + delay, every: again ? delay : 0 });
      return this.#number;
    };
    globalThis.setTimeout = add(false);
    globalThis.setInterval = add(true);
    globalThis.clearTimeout = globalThis.clearInterval = (number) => void this.#timers.delete(number);
    Date.now = () => this.#now;
  }

  /** Give the real ones back. */
  restore() {
    Object.assign(globalThis, { setTimeout: real.setTimeout, setInterval: real.setInterval });
    Object.assign(globalThis, { clearTimeout: real.clearTimeout, clearInterval: real.clearInterval });
    Date.now = real.now;
  }

  get now() {
    return this.#now;
  }

  get timers() {
    return this.#timers.size;
  }

  /** Let everything run that waits for no timer. Streams take some turns of the event loop. */
  async settle() {
    for (let turn = 0; turn < 12; turn++) await new Promise((resolve) => real.setImmediate(resolve));
  }

  /** Let `ms` milliseconds pass, timer by timer. */
  async advance(ms) {
    const until = this.#now + ms;
    for (;;) {
      await this.settle();
      let next;
      for (const [number, timer] of this.#timers) {
        if (timer.at <= until && (!next || timer.at < next[1].at)) next = [number, timer];
      }
      if (!next) break;
      const [number, timer] = next;
      this.#now = Math.max(this.#now, timer.at);
      if (timer.every) timer.at = this.#now + timer.every;
      else this.#timers.delete(number);
      timer.run();
    }
    this.#now = Math.max(this.#now, until);
  }

  /** A sleeping machine: time passes, and no timer runs until it is over. */
  freeze(ms) {
    this.#now += ms;
  }
}

const RANKS = { undefined: 0, null: 0, number: 1, string: 2, boolean: 3 };
const rankOf = (value) => RANKS[value === null ? "null" : typeof value];

/** MongoDB's order for what these documents hold: nothing, null, numbers, ASCII text, booleans. */
function compare(a, b) {
  if (rankOf(a) !== rankOf(b)) return rankOf(a) - rankOf(b);
  return rankOf(a) === 0 || a === b ? 0 : a < b ? -1 : 1;
}

const matches = (filter, document) => Object.entries(filter).every(([name, value]) => (document[name] ?? null) === value);

class User {
  constructor(id, username, secrets) {
    Object.assign(this, { id, username });
    /** From which position on the user sees secret documents, and from which not. */
    this.rights = [[0, secrets]];
  }

  sees(position = Infinity) {
    return this.rights.findLast(([from]) => from <= position)[1];
  }
}

/** Documents, their history, and connections that subscribe to them. */
export class Server {
  documents = new Map();
  /** Every change: `{position, id, before, after, at}`, the first at position 1. */
  changes = [];
  sockets = new Set();
  streams = new Set();
  /** Who may use which token, and whether they see documents that are marked `secret`. */
  users = new Map([
    ["ada-1", new User("a", "ada", true)],
    ["bob-1", new User("b", "bob", false)],
  ]);
  up = true;
  /** The statuses that the next requests for a schema are answered with. */
  schemaFaults = [];
  /** "open", "refused" (no handshake), "silent" (it never ends), "mute" (open, and no frame gets through). */
  websockets = "open";
  /** The first position that can still be recovered from. */
  reach = 0;
  tokenSeconds = 900;
  heartbeatSeconds = 25;
  snapshotMax = 10_000;
  latency = () => 5;
  readMs = () => 10;
  /** The kinds of values that `/schemas/posts` tells, and those that only who signed in is told of. */
  order = { id: ["string"] };
  secretOrder = {};
  /** Where the class's routes are. */
  path = "posts";
  received = [];
  requests = [];
  #number = 0;
  #beating;

  constructor(clock) {
    this.clock = clock;
    const server = this;
    this.WebSocket = class extends Socket {
      constructor(url, protocol) {
        super(server, url, protocol);
      }
    };
    globalThis.fetch = (url, init) => this.#answer(new URL(url), init ?? {});
    this.#beating = setInterval(() => this.beat(), this.heartbeatSeconds * 1_000);
  }

  stop() {
    clearInterval(this.#beating);
    globalThis.fetch = real.fetch;
  }

  get head() {
    return this.changes.length;
  }

  position(number = this.head) {
    return String(number).padStart(12, "0");
  }

  /** Create, replace (with a document) or delete (with null); answers with the write's `X-Position`. */
  write(id, fields) {
    const before = this.documents.get(id) ?? null;
    const after = fields && { id, ...fields };
    if (!before && !after) return this.position();
    if (after) this.documents.set(id, after);
    else this.documents.delete(id);
    const change = { position: this.head + 1, id, before, after, at: new Date(Date.now()).toISOString() };
    this.changes.push(change);
    for (const connection of [...this.sockets, ...this.streams]) connection.hear(change);
    return this.position();
  }

  /** The documents as they were at a position. */
  at(position) {
    const documents = new Map();
    for (const { id, after } of this.changes.slice(0, Number(position))) {
      if (after) documents.set(id, after);
      else documents.delete(id);
    }
    return documents;
  }

  /** What a query gives, by a user, at a position. */
  result({ filter = {}, sort = [], limit = 1_000 }, user = null, position = this.position()) {
    const keys = sort.map((name) => [name.replace(/^-/, ""), name.startsWith("-") ? -1 : 1]);
    keys.push(["id", keys.at(-1)?.[1] ?? 1]);
    const found = [...this.at(position).values()].filter((document) => this.sees(user, filter, document, Number(position)));
    found.sort((a, b) => keys.reduce((order, [name, sign]) => order || sign * compare(a[name], b[name]), 0));
    return found.slice(0, limit);
  }

  sees(user, filter, document, position) {
    return matches(filter, document) && (!document.secret || Boolean(user?.sees(position)));
  }

  /** Heartbeats of all connections. */
  beat() {
    for (const connection of [...this.sockets, ...this.streams]) connection.beat();
  }

  /** All views of a resource are lost. */
  reset(reason) {
    if (reason === "history_lost") this.reach = this.head;
    for (const connection of [...this.sockets, ...this.streams]) {
      for (const subscription of [...connection.subscriptions.values()]) connection.reset(subscription, reason);
    }
  }

  /** The rights of a user change, at once and on all connections. */
  grant(username, secrets) {
    // A change like any other, of a document that nobody here watches.
    this.changes.push({ position: this.head + 1, id: `user ${username}`, before: null, after: null, at: "" });
    for (const user of this.users.values()) if (user.username === username) user.rights.push([this.head, secrets]);
    // Nothing older than the last change of rights is replayed.
    this.reach = this.head;
    for (const connection of [...this.sockets, ...this.streams]) {
      for (const subscription of [...connection.subscriptions.values()]) {
        if (connection.viewOf(subscription) !== subscription.view) connection.reset(subscription, "access_changed");
      }
    }
  }

  /** Close everything and refuse what comes, as a server that ends does. */
  stopServing(code = 1006) {
    this.up = false;
    for (const connection of [...this.sockets, ...this.streams]) connection.end(code);
  }

  etag(document) {
    return `"${JSON.stringify(document).length}"`;
  }

  name(connection) {
    return `${connection}${++this.#number}`;
  }

  async #answer(url, { headers, signal, body, method = "GET" }) {
    const given = new Headers(headers);
    const token = given.get("authorization")?.replace("Bearer ", "") ?? null;
    this.requests.push({ method, path: url.pathname, token, body });
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, this.latency());
      signal?.addEventListener("abort", () => {
        clearTimeout(timer);
        reject(signal.reason);
      });
    });
    if (!this.up) throw new TypeError("fetch failed");
    const user = token === null ? null : this.users.get(token);
    if (user === undefined) return Response.json({ code: "unauthenticated", detail: "No." }, { status: 401 });
    const path = url.pathname.replace("/api/v1/", "");
    if (path.startsWith("schemas/")) {
      const status = this.schemaFaults.shift();
      const order = { ...this.order, ...(user && this.secretOrder) };
      return status ? Response.json({}, { status }) : Response.json({ path: path === "schemas/posts" ? this.path : undefined, order });
    }
    if (given.get("accept") !== "text/event-stream") return Response.json({ path, user, body: body ?? null });
    if (path !== this.path) return Response.json({ code: "not_found", detail: "There is no such class." }, { status: 404 });
    const stream = new Stream(this, url.searchParams, user, signal);
    return stream.refusal ?? new Response(stream.body, { headers: { "content-type": "text/event-stream" } });
  }
}

/** What a WebSocket and an event stream have in common on the server's side. */
class Connection {
  subscriptions = new Map();
  user = null;
  ended = false;

  constructor(server) {
    this.server = server;
  }

  viewOf({ filter, fields }) {
    return `v${JSON.stringify([filter, fields ?? null, Boolean(this.user?.sees())])}`;
  }

  subscribe({ id, filter = {}, fields, sort = [], limit = 1_000, since }) {
    const { server } = this;
    const view = this.viewOf({ filter, fields });
    const subscription = { id, filter, fields, sort, limit, view, ready: false, turn: 0 };
    this.subscriptions.set(id, subscription);
    const from = since ? Number(since.position) : NaN;
    const recovered = since ? since.view === view && from >= server.reach && from <= server.head : null;
    this.send({ type: "subscribed", id, view, recovered });
    if (recovered) {
      for (const change of server.changes.slice(from)) this.tell(subscription, change);
      subscription.ready = true;
      this.send({ type: "ready", id, view, position: server.position(), complete: true });
      return;
    }
    if (since) this.send({ type: "reset", view: since.view, reason: "history_lost" });
    this.read(subscription);
  }

  read(subscription) {
    const turn = ++subscription.turn;
    const { server } = this;
    setTimeout(() => {
      if (this.ended || subscription.turn !== turn || this.subscriptions.get(subscription.id) !== subscription) return;
      const { id, view, limit } = subscription;
      const found = server.result({ ...subscription, limit: limit + 1 }, this.user);
      const items = found.slice(0, limit).map((document) => ({ document, etag: server.etag(document) }));
      for (let first = 0; first === 0 || first < items.length; first += 3) {
        this.send({ type: "snapshot", id, view, items: items.slice(first, first + 3), more: first + 3 < items.length });
      }
      subscription.ready = true;
      this.send({ type: "ready", id, view, position: server.position(), complete: found.length <= limit });
    }, server.readMs());
  }

  hear(change) {
    if (this.ended) return;
    for (const subscription of this.subscriptions.values()) if (subscription.ready) this.tell(subscription, change);
  }

  tell({ view, filter }, { position, id, before, after, at }) {
    const { server } = this;
    const matched = before !== null && server.sees(this.user, filter, before);
    const now = after !== null && server.sees(this.user, filter, after);
    if (!matched && !now) return;
    const head = { type: "event", view, resource: "posts", id };
    const tail = { position: server.position(position), at };
    if (!now) return void this.send({ ...head, op: after ? "leave" : "delete", ...tail });
    const op = matched ? "update" : before ? "enter" : "create";
    this.send({ ...head, op, document: after, etag: server.etag(after), ...(matched && { changed: ["x"] }), ...tail });
  }

  reset(subscription, reason) {
    if (this.ended) return;
    subscription.ready = false;
    this.send({ type: "reset", view: subscription.view, reason });
    subscription.view = this.viewOf(subscription);
    this.read(subscription);
  }

  beat() {
    if (this.ended) return;
    this.send({ type: "position", position: this.server.position(), as_of: new Date(Date.now()).toISOString() });
  }
}

/** Both ends of a WebSocket: what the client calls, and what the server does. */
class Socket extends Connection {
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  #hung = false;
  #opened = false;
  #toClient = 0;
  #toServer = 0;
  #expiring = [];

  constructor(server, url, protocol) {
    super(server);
    this.url = url;
    this.protocol = protocol;
    const { websockets } = server;
    if (websockets === "silent") return;
    this.#deliver(() => {
      if (this.ended) return;
      if (!server.up || websockets === "refused") return this.#closed(1006);
      server.sockets.add(this);
      this.#opened = true;
      this.onopen?.({});
      if (websockets === "mute") this.#hung = true;
      this.send({ type: "welcome", protocol: "headwater.v1", connection: server.name("c"), heartbeat_seconds: server.heartbeatSeconds });
    });
  }

  #deliver(run) {
    this.#toClient = Math.max(this.#toClient, Date.now() + this.server.latency());
    setTimeout(() => !this.#hung && run(), this.#toClient - Date.now());
  }

  // The client's side.
  send(message) {
    if (typeof message !== "string") return this.#push(message);
    if (!this.#opened) throw new DOMException("still in CONNECTING state", "InvalidStateError");
    this.#toServer = Math.max(this.#toServer, Date.now() + this.server.latency());
    setTimeout(() => !this.ended && !this.#hung && this.#take(JSON.parse(message)), this.#toServer - Date.now());
  }

  close() {
    this.end(1000);
  }

  // The server's side.
  #push(frame) {
    if (this.ended) return;
    const text = JSON.stringify(frame);
    this.#deliver(() => this.onmessage?.({ data: text }));
  }

  #closed(code) {
    const { onclose } = this;
    this.onopen = this.onmessage = this.onclose = null;
    onclose?.({ code });
  }

  /** The connection ends, and the client hears of it. */
  end(code) {
    if (this.ended) return;
    this.ended = true;
    this.server.sockets.delete(this);
    for (const timer of this.#expiring) clearTimeout(timer);
    this.#deliver(() => this.#closed(code));
  }

  /** Half open: nothing gets through any more, in either direction, and nobody is told. */
  hang() {
    this.#hung = true;
    this.ended = true;
    this.server.sockets.delete(this);
    for (const timer of this.#expiring) clearTimeout(timer);
  }

  #take(message) {
    const { server } = this;
    server.received.push(message);
    const { type, id } = message;
    const fail = (code, text) => this.send({ type: "error", id, code, message: text });
    if (type === "auth") {
      const user = server.users.get(message.token);
      if (!user || (this.user && this.user.id !== user.id)) return this.end(4501);
      const before = [...this.subscriptions.values()].map((known) => [known, this.viewOf(known)]);
      this.user = user;
      for (const timer of this.#expiring) clearTimeout(timer);
      const left = server.tokenSeconds;
      const warning = Math.min(60, left);
      this.send({ type: "authenticated", user: { id: user.id, username: user.username, roles: [] }, expires_at: null });
      this.#expiring = [
        setTimeout(() => this.send({ type: "auth_expiring", seconds: warning }), (left - warning) * 1_000),
        setTimeout(() => this.end(4001), left * 1_000),
      ];
      for (const [known, view] of before) if (this.viewOf(known) !== view) this.reset(known, "access_changed");
    } else if (type === "subscribe") {
      if (message.resource !== "posts") return fail("unknown_resource", "resource: there is no such resource");
      if (message.limit > server.snapshotMax) return fail("bad_query", `limit: at most ${server.snapshotMax}`);
      if (message.filter?.nope) return fail("bad_query", "filter.nope: there is no field `nope`");
      if (this.subscriptions.has(id)) return fail("duplicate_id", `the subscription ${id} exists already`);
      if (this.subscriptions.size >= 100) return fail("too_many_subscriptions", "at most 100 subscriptions a connection");
      const view = this.viewOf({ filter: message.filter ?? {}, fields: message.fields });
      for (const other of this.subscriptions.values()) {
        if (other.view === view) return fail("already_subscribed", `subscription ${other.id} has this view already`);
      }
      this.subscribe(message);
    } else if (type === "unsubscribe") {
      if (!this.subscriptions.delete(id)) return fail("unknown_subscription", `there is no subscription ${id}`);
      this.send({ type: "unsubscribed", id, reason: "requested" });
    } else if (type === "ping") {
      if (message.position === "bad") return fail("bad_position", "not a position of this database");
      this.#pong(id, message.position ?? "");
    }
  }

  #pong(id, position) {
    if (this.ended) return;
    const settled = !position || [...this.subscriptions.values()].every(({ ready }) => ready);
    if (settled && position <= this.server.position()) this.send({ type: "pong", id });
    else setTimeout(() => this.#pong(id, position), 20);
  }
}

/** A live list as Server-Sent Events. */
class Stream extends Connection {
  #controller;
  #id = "";

  constructor(server, parameters, user, signal) {
    super(server);
    this.user = user;
    const limit = Number(parameters.get("limit"));
    if (limit > server.snapshotMax) {
      const errors = [{ loc: ["query", "limit"], msg: `a whole number from 1 to ${server.snapshotMax} is expected` }];
      this.refusal = Response.json({ code: "invalid", detail: "No.", errors }, { status: 422 });
      return;
    }
    this.body = new ReadableStream({ start: (controller) => void (this.#controller = controller) }).pipeThrough(new TextEncoderStream());
    server.streams.add(this);
    signal?.addEventListener("abort", () => this.#gone());
    const [view, position] = parameters.get("since")?.split("@") ?? [];
    const text = { filter: parameters.get("filter"), sort: parameters.get("sort"), fields: parameters.get("fields") };
    this.subscribe({
      id: "sse",
      filter: JSON.parse(text.filter ?? "{}"),
      sort: text.sort?.split(","),
      fields: text.fields?.split(","),
      limit,
      since: view && { view: parameters.get("since").slice(0, -13), position },
    });
  }

  send(frame) {
    if (this.ended || ["subscribed", "auth_expiring"].includes(frame.type)) return;
    if (frame.type === "position" && ![...this.subscriptions.values()].every(({ ready }) => ready)) return;
    const at = frame.position ? `id: ${frame.view ?? this.#id}@${frame.position}\n` : "";
    const name = frame.type === "error" ? "problem" : frame.op ?? frame.type;
    this.#controller.enqueue(`${at}event: ${name}\ndata: ${JSON.stringify(frame)}\n\n`);
  }

  #gone() {
    this.ended = true;
    this.server.streams.delete(this);
  }

  end(code) {
    if (this.ended) return;
    if (code === 4001) this.send({ type: "error", code: "token_expired", message: "the token or key has expired" });
    if (code === 4503) this.send({ type: "error", code: "forbidden", message: "the session has ended" });
    this.#gone();
    if (code === 1006) this.#controller.error(new TypeError("terminated"));
    else this.#controller.close();
  }

  hang() {
    this.#gone();
  }
}
