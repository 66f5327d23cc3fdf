// Requests to the REST API, through the client, and their problems (RFC 9457).

/** An answer that is not a success. */
export class Problem extends Error {
  constructor(status, content) {
    super(content?.detail ?? `The server answers ${status}.`);
    this.status = status;
    this.code = content?.code ?? "error";
    /** @type {{loc: (string | number)[], msg: string, type: string}[]} */
    this.errors = content?.errors ?? [];
  }
}

/** What an error is to a person, whatever its kind. */
export function words(error) {
  if (error instanceof Problem) return error.message;
  if (error instanceof TypeError) return "The server does not answer. Try again in a moment.";
  return `Something went wrong: ${error.message}`;
}

/** The part of a path that a name or an id is. */
export const part = encodeURIComponent;

/** The header with which a document of a `conditional` class is changed: such classes want to know what the person saw. */
export const ifMatch = (conditional, etag) => (conditional && etag ? { "If-Match": etag } : {});

/**
 * Ask the API.
 *
 * @param {{fetch: (path: string, init?: any) => Promise<Response>}} client
 * @param {string} method
 * @param {string} path Below `/api/v1/`, its parts already encoded.
 * @param {{body?: any, headers?: Record<string, string>, query?: Record<string, string>, keepalive?: boolean}} [options]
 * @returns {Promise<{content: any, etag: string | null, position: string | null}>}
 * @throws {Problem} for an answer that is not a success, {TypeError} when there is none.
 */
export async function ask(client, method, path, { query, headers = {}, ...options } = {}) {
  const address = query ? `${path}?${new URLSearchParams(query)}` : path;
  const answer = await client.fetch(address, { method, headers: { Accept: "application/json", ...headers }, ...options });
  const text = await answer.text();
  const content = text && answer.headers.get("Content-Type")?.includes("json") ? JSON.parse(text) : null;
  if (!answer.ok) throw new Problem(answer.status, content);
  return { content, etag: answer.headers.get("ETag"), position: answer.headers.get("X-Position") };
}
