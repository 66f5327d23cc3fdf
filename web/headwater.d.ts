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
export type State = "connecting" | "live" | "stale" | "offline";
export type Doc = Record<string, any> & {
    id: string;
};
export type Query = {
    filter?: Record<string, unknown>;
    sort?: string | string[];
    fields?: string[];
    limit?: number;
};
export type GetToken = (why: {
    refresh: boolean;
}) => string | null | undefined | Promise<string | null | undefined>;
export type Options = {
    /**
     * An access token or API key, null for anonymous. With `refresh` the last one was
     * refused or is about to expire: get another.
     */
    getToken?: GetToken;
    /**
     * "auto" takes Server-Sent Events where WebSockets do not get through.
     */
    transport?: "auto" | "websocket" | "sse";
    /**
     * An implementation, where there is none (Node before 22).
     */
    WebSocket?: any;
};
export type LiveEvent = {
    op: "create" | "enter" | "update" | "leave" | "delete";
    id: string;
    document?: Doc;
    etag?: string;
    changed?: string[];
    position: string;
    at: string;
};
export type Trouble = {
    code: string | number;
    message: string;
};
export type Change = {
    items: Doc[];
    events: LiveEvent[];
};
export type Entry = {
    document: Doc;
    etag: string;
    key: Key;
};
export type Key = [rank: number, value: any][];
export type Kinds = Record<string, string[]>;
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
declare class Emitter<Events extends Record<string, any>> {
    #private;
    /**
     * Call `listener` with each `name` event. Answers with a function that ends it.
     * @template {keyof Events} Name
     * @param {Name} name
     * @param {(value: Events[Name]) => void} listener
     * @returns {() => void}
     */
    on<Name extends keyof Events>(name: Name, listener: (value: Events[Name]) => void): () => void;
}
/**
 * A connection to a Headwater server, for any number of live queries.
 *
 * Events: `state` (State), `error` (Trouble: the server refuses this client, until `renew()`), `authenticated` (the user).
 * @extends {Emitter<{ state: State, error: Trouble, authenticated: { id: string, username: string, roles: string[] } }>}
 */
export declare class Headwater extends Emitter<{
    state: State;
    error: Trouble;
    authenticated: {
        id: string;
        username: string;
        roles: string[];
    };
}> {
    #private;
    /**
     * @param {string} [url] The server: `https://api.example.org`, or nothing for the page's own.
     * @param {Options} [options]
     */
    constructor(url?: string, options?: Options);
    /** The worst of its connections: "offline" before the first live query, and when nothing can be reached. */
    get state(): State;
    /**
     * Milliseconds: how much later the last event came than the quickest one, so a wrong clock does not matter; while
     * the connection is not live, the time since it was heard of.
     */
    get lag(): number;
    /**
     * A live query. Equal ones share a subscription.
     * @param {string} resource
     * @param {Query} [query] `limit` is 1,000 unless said otherwise.
     * @returns {Live}
     */
    live(resource: string, query?: Query): Live;
    /**
     * `fetch` of the API with the present token, and once more with another when it is refused (401).
     * @param {string} path Below `/api/v1/`.
     * @param {Omit<RequestInit, "body"> & { body?: any }} [init] A plain object or array as `body` is sent as JSON.
     * @returns {Promise<Response>}
     */
    fetch(path: string, init?: Omit<RequestInit, "body"> & {
        body?: any;
    }): Promise<Response>;
    /**
     * Ask `getToken` again and go on as that user: after a sign-in, or when the server has refused this client.
     * @returns {Promise<void>}
     */
    renew(): Promise<void>;
    /** End all live queries and connections, for good. Safe to call twice. */
    close(): void;
}
/**
 * A live query's result.
 *
 * Events: `change` (Change, at most one in a frame), `event` (LiveEvent: each one, also of what lies beyond `limit`),
 * `state` (State), `error` (Trouble: the query has ended).
 * @extends {Emitter<{ change: Change, event: LiveEvent, state: State, error: Trouble }>}
 */
export declare class Live extends Emitter<{
    change: Change;
    event: LiveEvent;
    state: State;
    error: Trouble;
}> {
    #private;
    /** The documents in order: the first `limit` of all that match. Another array after each change. */
    get items(): Doc[];
    /** Whether `items` is all that matches. */
    get complete(): boolean;
    /**
     * "live": `items` is the result as the server has it; "stale": it may be older; "offline": the same, and nothing can
     * be reached; "connecting": there is no result yet.
     */
    get state(): State;
    /** Why the query has ended, if the server ended it. */
    get error(): Trouble | null;
    /** The entity tag of a document in the result, for `If-Match`. @param {string} id */
    etag(id: string): string | undefined;
    /** Fulfilled with the items at the first result; rejected when the query ends without one. @returns {Promise<Doc[]>} */
    get ready(): Promise<Doc[]>;
    /**
     * Fulfilled when `items` has everything up to a position: the `X-Position` of any answer.
     * @param {string | null} position
     * @returns {Promise<void>}
     */
    caughtUp(position: string | null): Promise<void>;
    /** End this query. `items` stays as it is. Safe to call twice. */
    close(): void;
}
export {};
