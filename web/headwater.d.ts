/**
 * Live queries of a Headwater server: a local result that is kept equal to the server's, or says that it is not.
 *
 *     const client = new Headwater("https://api.example.org", { getToken: () => session.token });
 *     const posts = client.live("posts", { filter: { status: "published" }, sort: ["-created_at"], limit: 50 });
 *     posts.on("change", ({ items }) => render(items));
 *
 * Needs WebSocket, fetch and ES2022; no dependencies. docs/client.md has the guarantees.
 */

export type State = "connecting" | "live" | "stale" | "offline";

/** A document in its public form. */
export type Doc = Record<string, any> & { id: string };

export interface Query {
  filter?: Record<string, unknown>;
  /** `["-created_at", "title"]` or `"-created_at,title"`; by the id if absent. */
  sort?: string | string[];
  /** What to send of each document. The id, and what the order needs, come too. */
  fields?: string[];
  /** How many documents `items` has at most: a whole number from 1, and 1,000 unless said otherwise. */
  limit?: number;
}

export interface Options {
  /**
   * Gives an access token or an API key, null for anonymous. With `refresh` the last one was refused or is about to
   * expire: get another.
   */
  getToken?: (why: { refresh: boolean }) => string | null | undefined | Promise<string | null | undefined>;
  /** "auto" takes Server-Sent Events where WebSockets do not get through. */
  transport?: "auto" | "websocket" | "sse";
  /** An implementation of WebSocket, where there is none (Node before 22). */
  WebSocket?: unknown;
}

/** What happened to one document. */
export interface LiveEvent {
  op: "create" | "enter" | "update" | "leave" | "delete";
  id: string;
  document?: Doc;
  etag?: string;
  changed?: string[];
  position: string;
  /** When it was committed, by the database's clock. */
  at: string;
}

export interface Change {
  items: Doc[];
  /** The events that led here since the last change; empty when a whole result took the place of another. */
  events: LiveEvent[];
}

/** Why the server has refused something: a close code, or a code of the protocol or of problem details. */
export interface Trouble {
  code: string | number;
  message: string;
}

export interface User {
  id: string;
  username: string;
  roles: string[];
}

interface Emitter<Events> {
  /** Call `listener` with each `name` event. Answers with a function that ends it. */
  on<Name extends keyof Events>(name: Name, listener: (value: Events[Name]) => void): () => void;
}

export interface HeadwaterEvents {
  state: State;
  /** The server refuses this client, which stays away until `renew()`. */
  error: Trouble;
  /** A WebSocket has signed in. */
  authenticated: User;
}

export interface LiveEvents {
  /** `items` has changed. */
  change: Change;
  /** Each event of the whole filter, also of what lies beyond `limit`. */
  event: LiveEvent;
  state: State;
  /** The server has ended the query. */
  error: Trouble;
}

/** A connection to a Headwater server, for any number of live queries. */
export class Headwater implements Emitter<HeadwaterEvents> {
  /** `url` is the server, `https://api.example.org`; by default the page's own. */
  constructor(url?: string, options?: Options);
  on: Emitter<HeadwaterEvents>["on"];
  /** The worst of its connections; "offline" before the first query. */
  readonly state: State;
  /**
   * Milliseconds: how much later the last event came than the quickest one, so that a wrong clock does not matter. While
   * the connection is not live, the time since something was heard.
   */
  readonly lag: number;
  /** A live query. Equal ones share a subscription. */
  live(resource: string, query?: Query): Live;
  /**
   * `fetch` of a path below `/api/v1/` with the present token, and once more with another when that is refused (401). A
   * plain object or a list as `body` is sent as JSON.
   */
  fetch(path: string, init?: Omit<RequestInit, "body"> & { body?: any }): Promise<Response>;
  /** Ask `getToken` again and go on as that user: after a sign-in, or after `error`. */
  renew(): Promise<void>;
  /** End all queries and connections, for good. Safe to call twice. */
  close(): void;
}

/** A live query's result. */
export class Live implements Emitter<LiveEvents> {
  private constructor();
  on: Emitter<LiveEvents>["on"];
  /** The first `limit` of all documents that match, in order. Another array after each change. */
  readonly items: Doc[];
  /** Whether `items` is all that matches. */
  readonly complete: boolean;
  /**
   * "live": `items` is the server's result at `position`. "stale": it may be older. "offline": the same, and nothing can
   * be reached, or the query has ended. "connecting": there is no result yet.
   */
  readonly state: State;
  /** Up to where `items` has every change, while it has a place in the server's order. */
  readonly position: string | undefined;
  /** Why the server has ended the query. */
  readonly error: Trouble | null;
  /** Fulfilled with the items at the first result; rejected when the query ends without one. */
  readonly ready: Promise<Doc[]>;
  /** The entity tag of a document in the result, for `If-Match`. */
  etag(id: string): string | undefined;
  /** Fulfilled when `items` has everything up to a position: the `X-Position` of any answer. */
  caughtUp(position: string | null): Promise<void>;
  /** End this query; `items` stays as it is. Safe to call twice. */
  close(): void;
}
