// Many browser clients in one process: node browsers.mjs URL COUNT RESOURCE QUERY
//
// Says `live` when each has its result. A line on standard input, `{"count": n, "seconds": s}`, asks for the end: it waits
// until each has heard of n documents, at most for so long, and prints what it knows as one line of JSON.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

import { Headwater } from "../web/headwater.js";

const { WebSocket } = createRequire(new URL("../tests/node/package.json", import.meta.url))("ws");
const [url, count, resource, query] = process.argv.slice(2);
const frames = { resumed: 0, afresh: 0, resets: 0 };
const closed = {};
const faults = [];
const delays = [];

process.on("uncaughtException", (error) => faults.push(String(error.stack)));
process.on("unhandledRejection", (error) => faults.push(String(error?.stack ?? error)));

/** Counts on the wire what the client keeps to itself. */
class Watched extends WebSocket {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", ({ data }) => {
      if (data.startsWith('{"type":"reset"')) frames.resets++;
      if (!data.startsWith('{"type":"subscribed"')) return;
      const { recovered } = JSON.parse(data);
      if (recovered !== null) frames[recovered ? "resumed" : "afresh"]++;
    });
    this.addEventListener("close", ({ code }) => (closed[code] = (closed[code] ?? 0) + 1));
  }
}

const watchers = Array.from({ length: Number(count) }, () => {
  const client = new Headwater(url, { WebSocket: Watched, transport: "websocket" });
  const live = client.live(resource, JSON.parse(query));
  const heard = [];
  live.on("event", ({ op, id, document }) => {
    if (op !== "create" && op !== "enter") return;
    heard.push(id);
    delays.push(Date.now() / 1_000 - Number(document.body));
  });
  client.on("error", ({ code, message }) => faults.push(`${code}: ${message}`));
  live.on("error", ({ code, message }) => faults.push(`${code}: ${message}`));
  return { client, live, heard };
});
await Promise.all(watchers.map(({ live }) => live.ready));
console.log("live");

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const end = Date.now() + asked.seconds * 1_000;
  while (Date.now() < end && watchers.some(({ heard }) => heard.length < asked.count))
    await new Promise((resolve) => setTimeout(resolve, 100));
  const results = watchers.map(({ live, heard }) => ({ heard, state: live.state, items: live.items.map(({ id }) => id) }));
  console.log(JSON.stringify({ frames, closed, faults, delays, results }));
  break;
}
for (const { client } of watchers) client.close();
