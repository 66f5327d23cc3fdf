// Runs the client in a process of its own, as told by JSON lines on standard input; answers each with a line.
//
// Next to obeying it watches: what a live query must never do, in whatever situation, is told as a fault.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

import { Headwater } from "../../web/headwater.js";

const { WebSocket } = createRequire(new URL("../node/package.json", import.meta.url))("ws");
const faults = [];
const lives = new Map();
const states = [];
let client;
let tokens = [];

process.on("uncaughtException", (error) => faults.push(`uncaught: ${error.stack}`));
process.on("unhandledRejection", (error) => faults.push(`unhandled: ${error?.stack ?? error}`));

const actions = {
  connect({ url, tokens: given, transport }) {
    tokens = given;
    client = new Headwater(url, {
      WebSocket,
      transport,
      getToken: ({ refresh }) => {
        if (refresh && tokens.length > 1) tokens.shift();
        return tokens[0] ?? null;
      },
    });
    client.on("state", (state) => states.push(state));
    client.on("error", ({ code }) => states.push(code));
  },
  open({ name, resource, query }) {
    const live = client.live(resource, query);
    const seen = { live, states: [live.state], events: 0, position: "" };
    live.on("state", (state) => seen.states.push(state));
    live.on("error", ({ code }) => seen.states.push(code));
    live.on("event", ({ position }) => {
      seen.events++;
      if (position <= seen.position) faults.push(`${name}: an event at ${position} after ${seen.position}`);
      seen.position = position;
    });
    live.on("change", ({ items }) => {
      const ids = items.map(({ id }) => id);
      if (new Set(ids).size !== ids.length) faults.push(`${name}: a document twice`);
      if (items.length > (query.limit ?? 1_000)) faults.push(`${name}: more than its limit`);
    });
    lives.set(name, seen);
  },
  close({ name }) {
    lives.get(name).live.close();
    lives.delete(name);
  },
  look() {
    const each = [...lives].map(([name, { live, states: told, events }]) => [name, { state: live.state, states: told, events }]);
    return { state: client.state, states, lag: client.lag, transport: client._transport, lives: Object.fromEntries(each), faults };
  },
  async caughtUp({ name, position }) {
    const { live } = lives.get(name);
    await live.caughtUp(position);
    return { items: live.items, complete: live.complete, position: live.position };
  },
  // What a page does that computes for too long: nothing is read meanwhile.
  block({ ms }) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
  },
  renew: () => client.renew(),
  end: () => client.close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { number, action, ...given } = JSON.parse(line);
  const answer = (content) => process.stdout.write(`${JSON.stringify({ number, ...content })}\n`);
  Promise.resolve()
    .then(() => actions[action](given))
    .then((value) => answer({ value: value ?? null }))
    .catch((error) => answer({ error: error.message }));
}
client?.close();
