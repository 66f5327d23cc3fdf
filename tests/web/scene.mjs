// What the tests of the client share: a scripted server, its clock, and a client of it, for the length of one test.

import { test } from "node:test";

import { Headwater } from "../../web/headwater.js";
import { Clock, Server, chance } from "./scripted.mjs";

/**
 * A test on a clock of its own. `run` is given `clock`, `server`, and `connect(options)`, which makes a client; its
 * `states` tells all states that it had. All is ended afterwards.
 */
export function scene(name, run) {
  test(name, async () => {
    const clock = new Clock();
    const { random } = Math;
    Math.random = chance(7).next;
    const server = new Server(clock);
    const clients = [];
    const connect = (options = {}) => {
      const client = new Headwater("http://host", { getToken: () => "ada-1", WebSocket: server.WebSocket, ...options });
      client.states = [];
      client.on("state", (state) => client.states.push(state));
      clients.push(client);
      return client;
    };
    try {
      await run({ clock, server, connect });
    } finally {
      for (const client of clients) client.close();
      server.stop();
      clock.restore();
      Math.random = random;
    }
  });
}

/** A live query that tells all its states, changes and errors. */
export function watched(client, query, resource = "posts") {
  const live = client.live(resource, query);
  const told = { states: [], changes: [], events: [], errors: [] };
  live.on("state", (state) => told.states.push(state));
  live.on("change", (change) => told.changes.push(change));
  live.on("event", (event) => told.events.push(event));
  live.on("error", (error) => told.errors.push(error));
  return Object.assign(live, { told });
}

export const ids = (live) => live.items.map(({ id }) => id);
