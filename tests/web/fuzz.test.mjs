// Random schedules: whatever happens, a result that is said to be live is the server's at its position, and in the end
// every result is the server's.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Headwater } from "../../web/headwater.js";
import { Clock, Server, chance } from "./scripted.mjs";

const RUNS = Number(process.env.FUZZ_RUNS ?? 60);
const FIRST = Number(process.env.FUZZ_SEED ?? 1);
const STEPS = 120;

const VALUES = [undefined, null, 0, 1, 2, -5, 1.5, "a", "b", "B", "aa", true, false];
const FILTERS = [{}, {}, { s: 1 }, { s: 2 }];
const SORTS = [undefined, ["n"], ["-n"], ["n", "-m"], ["-id"], "m,-n"];

async function schedule(seed) {
  const random = chance(seed);
  const clock = new Clock();
  // Where the client and the server draw lots, they draw the same ones again for the same seed.
  const { random: drawn } = Math;
  Math.random = random.next;
  const server = new Server(clock);
  const trace = [];
  try {
    server.latency = () => 1 + random.below(30);
    server.readMs = () => random.below(80);
    server.tokenSeconds = random.pick([900, 900, 70, 20]);
    server.snapshotMax = random.pick([10_000, 10_000, 12]);
    let token = random.pick(["ada-1", "bob-1", null]);
    const client = new Headwater("http://host", { getToken: () => token, WebSocket: server.WebSocket });
    const lives = [];
    const refused = [];
    client.on("error", (trouble) => refused.push(trouble));
    const check = (when) => {
      for (const { live, query } of lives) {
        if (live.state !== "live") continue;
        const expected = server.result(query, server.users.get(token) ?? null, live.position);
        const told = () => JSON.stringify({ seed, when, query, position: live.position, trace: trace.slice(-30) }, null, 1);
        assert.deepEqual(live.items, expected, told());
      }
    };
    const open = () => {
      const query = { filter: random.pick(FILTERS), sort: random.pick(SORTS), limit: random.pick([1, 3, 5, 10, undefined]) };
      const live = client.live("posts", query);
      const normal = { ...query, limit: query.limit ?? Math.min(1_000, server.snapshotMax), sort: typeof query.sort === "string" ? query.sort.split(",") : query.sort };
      const known = { live, query: normal };
      let before = live.state;
      live.on("state", (state) => {
        assert.notEqual(state, before, "a state is told once");
        before = state;
        check("a change of state");
      });
      live.on("change", () => check("a change"));
      lives.push(known);
    };
    const id = () => `d${String(random.below(60)).padStart(2, "0")}`;
    const write = () => {
      const fields = { n: random.pick(VALUES), m: random.pick(VALUES), s: random.below(3), secret: random.below(5) === 0 };
      if (fields.n === undefined) delete fields.n;
      if (fields.m === undefined) delete fields.m;
      server.write(id(), random.below(4) ? fields : null);
    };
    const connections = () => [...server.sockets, ...server.streams];
    const steps = {
      write: () => write(),
      writes: () => Array.from({ length: random.below(30) }, write),
      clear: () => [...server.documents.keys()].slice(0, random.below(50)).forEach((known) => server.write(known, null)),
      open: () => lives.length < 8 && open(),
      close: () => lives.length && lives.splice(random.below(lives.length), 1)[0].live.close(),
      cut: () => random.pick([...connections(), { end() {} }]).end(1006),
      hang: () => random.pick([...connections(), { hang() {} }]).hang(),
      code: () => random.pick([...connections(), { end() {} }]).end(random.pick([1000, 1012, 4001, 4008, 4029])),
      goaway: () => {
        for (const connection of connections()) {
          connection.send({ type: "goaway", reason: "draining", retry_after_ms: [500, 5_000] });
          if (random.below(3)) connection.end(4000);
        }
      },
      down: () => server.stopServing(random.pick([1006, 1012])),
      up: () => void (server.up = true),
      reset: () => server.reset(random.pick(["history_lost", "lagging", "schema_changed"])),
      forget: () => void (server.reach = server.head),
      grant: () => server.grant(random.pick(["ada", "bob"]), Boolean(random.below(2))),
      block: () => void (server.websockets = random.pick(["open", "refused", "silent", "mute"])),
      freeze: () => clock.freeze(random.below(120_000)),
      wake: () => client.renew().catch(() => {}),
      caughtUp: () => {
        for (const { live, query } of lives) {
          const user = server.users.get(token) ?? null;
          const position = server.position();
          live.caughtUp(position).then(
            () => {
              assert.ok(live.position >= position, "caught up");
              // Only then could the rights of another user be meant.
              if (live.state === "live") {
                const told = JSON.stringify({ seed, query, position, at: live.position, user, trace: trace.slice(-20) }, null, 1);
                assert.deepEqual(live.items, server.result(query, user, live.position), told);
              }
            },
            () => {},
          );
        }
      },
    };
    const names = ["write", "write", "write", "writes", "writes", ...Object.keys(steps)];
    open();
    for (let step = 0; step < STEPS; step++) {
      const name = random.pick(names);
      trace.push(`${clock.now} ${name}`);
      steps[name]();
      await clock.advance(random.pick([0, 1, 10, 100, 1_000, 10_000, 40_000]));
      check(name);
      if (random.below(60) === 0) {
        // Somebody else signs in.
        token = random.pick(["ada-1", "bob-1", null]);
        trace.push(`${clock.now} as ${token}`);
        for (const { live } of lives) live.close();
        lives.length = 0;
        await client.renew().catch(() => {});
      }
    }
    server.up = true;
    server.websockets = "open";
    // A change of the transport may come at any time, and takes a moment.
    for (let n = 0; n < 3 && (n === 0 || lives.some(({ live }) => live.state !== "live")); n++) await clock.advance(200_000);
    assert.deepEqual(refused, []);
    for (const { live, query } of lives) {
      const told = JSON.stringify({ seed, query, trace: trace.slice(-20) }, null, 1);
      assert.equal(live.state, "live", told);
      assert.deepEqual(live.items, server.result(query, server.users.get(token) ?? null), told);
    }
    client.close();
    await clock.advance(600_000);
    assert.equal(connections().length, 0, "nothing stays open");
    server.stop();
    await clock.advance(60_000);
    assert.equal(clock.timers, 0, "no timer is left behind");
  } finally {
    Math.random = drawn;
    server.stop();
    clock.restore();
  }
}

test(`${RUNS} random schedules from seed ${FIRST}`, async () => {
  for (let seed = FIRST; seed < FIRST + RUNS; seed++) await schedule(seed);
});
