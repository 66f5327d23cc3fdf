// Server-Sent Events, where a proxy lets no WebSocket through.

import assert from "node:assert/strict";

import { ids, scene, watched } from "./scene.mjs";

for (const broken of ["refused", "mute", "silent"]) {
  scene(`WebSockets that are ${broken}`, async ({ clock, server, connect }) => {
    server.websockets = broken;
    server.write("a", {});
    const client = connect();
    const lives = [watched(client), watched(client, { filter: { s: 1 }, limit: 1 })];
    await clock.advance(60_000);
    assert.deepEqual(lives.map(({ state }) => state), ["live", "live"]);
    assert.deepEqual([client.state, server.streams.size], ["live", 2]);
    server.write("b", { s: 1 });
    server.write("c", { s: 1 });
    await clock.advance(100);
    assert.deepEqual(lives.map(ids), [["a", "b", "c"], ["b"]]);
    lives[1].close();
    await clock.advance(100);
    assert.equal(server.streams.size, 1);
    server.websockets = "open";
    await clock.advance(400_000);
    assert.deepEqual([server.streams.size, server.sockets.size, lives[0].state], [0, 1, "live"], "and back, when they are let through");
    server.write("d", {});
    await clock.advance(100);
    assert.deepEqual(ids(lives[0]), ["a", "b", "c", "d"]);
    assert.deepEqual(lives[0].told.states, ["live", "stale", "live"], "and never said to be offline");
    assert.deepEqual(lives[0].told.events.map(({ id }) => id), ["b", "c", "d"], "nothing twice");
  });
}

const sse = { transport: "sse" };

scene("no WebSocket at all", async ({ clock, server, connect }) => {
  server.write("a", {});
  const known = globalThis.WebSocket;
  delete globalThis.WebSocket;
  try {
    const live = watched(connect({ WebSocket: undefined }));
    await clock.advance(1_000);
    assert.deepEqual([ids(live), live.state], [["a"], "live"]);
    server.stopServing();
    await clock.advance(60_000);
    assert.equal(live.state, "offline");
    server.up = true;
    server.write("b", {});
    await clock.advance(60_000);
    assert.deepEqual([ids(live), live.state], [["a", "b"], "live"], "it has nothing to change over to");
  } finally {
    if (known) globalThis.WebSocket = known;
  }
});

scene("a class whose routes are not at its name", async ({ clock, server, connect }) => {
  server.path = "the-posts";
  server.write("a", {});
  const live = watched(connect(sse));
  await clock.advance(1_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["a"]]);
});

scene("a stream that breaks off", async ({ clock, server, connect }) => {
  server.write("a", {});
  const live = watched(connect(sse));
  await clock.advance(1_000);
  [...server.streams][0].end(1006);
  await clock.advance(1);
  assert.equal(live.state, "stale");
  server.write("b", {});
  await clock.advance(5_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["a", "b"]]);
  assert.equal(live.told.changes.at(-1).events.length, 1, "resumed");
  [...server.streams][0].end(1006);
  server.write("c", {});
  server.reach = server.head;
  await clock.advance(5_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["a", "b", "c"]], "too late to resume");
});

scene("a stream that falls silent", async ({ clock, server, connect }) => {
  const live = watched(connect(sse));
  await clock.advance(1_000);
  [...server.streams][0].hang();
  server.write("a", {});
  await clock.advance(28_000);
  assert.equal(live.state, "live");
  await clock.advance(30_000);
  assert.deepEqual([live.state, ids(live), live.told.states], ["live", ["a"], ["live", "stale", "live"]]);
});

scene("a stream's token expires", async ({ clock, server, connect }) => {
  const asked = [];
  const live = watched(connect({ ...sse, getToken: ({ refresh }) => (asked.push(refresh), "ada-1") }));
  await clock.advance(1_000);
  [...server.streams][0].end(4001);
  server.write("a", {});
  await clock.advance(1_000);
  assert.deepEqual([live.state, ids(live), asked], ["live", ["a"], [false, true]]);
});

scene("a cached token that a stream is refused with", async ({ clock, server, connect }) => {
  let token = "old";
  const live = watched(connect({ ...sse, getToken: ({ refresh }) => (token = refresh ? "ada-1" : token) }));
  await clock.advance(2_000);
  assert.equal(live.state, "live");
});

scene("a session that ends", async ({ clock, server, connect }) => {
  const client = connect(sse);
  const live = watched(client);
  const errors = [];
  client.on("error", ({ code }) => errors.push(code));
  await clock.advance(1_000);
  [...server.streams][0].end(4503);
  await clock.advance(600_000);
  assert.deepEqual([errors, live.state, server.streams.size], [[4503], "offline", 0]);
});

scene("a reset on a stream", async ({ clock, server, connect }) => {
  server.write("a", { secret: true });
  server.write("b", {});
  const live = watched(connect(sse));
  await clock.advance(1_000);
  server.grant("ada", false);
  await clock.advance(1_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["b"]]);
  server.write("c", {});
  await clock.advance(100);
  assert.deepEqual(ids(live), ["b", "c"]);
});

scene("documents that leave a window on a stream", async ({ clock, server, connect }) => {
  for (let n = 0; n < 100; n++) server.write(`d${100 + n}`, { n });
  const live = watched(connect(sse), { sort: ["n"], limit: 3 });
  await clock.advance(1_000);
  for (let n = 0; n < 50; n++) server.write(`d${100 + n}`, null);
  await clock.advance(5_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["d150", "d151", "d152"]]);
});

scene("queries that a stream is refused for", async ({ clock, server, connect }) => {
  const client = connect(sse);
  const unknown = watched(client, {}, "nope");
  server.snapshotMax = 10;
  const large = watched(client, { limit: 11 });
  const fitting = watched(client, { limit: 9 });
  const all = watched(client, { filter: { s: 1 } });
  await clock.advance(5_000);
  assert.deepEqual([unknown.error?.code, large.error?.code], ["not_found", "bad_query"]);
  assert.deepEqual([fitting.state, all.state], ["live", "live"]);
});

scene("waiting for one's own write on a stream", async ({ clock, server, connect }) => {
  const live = watched(connect(sse));
  await clock.advance(1_000);
  let done = false;
  const waiting = live.caughtUp(server.write("a", {})).then(() => (done = ids(live)));
  await clock.advance(1_000);
  assert.deepEqual(done, ["a"], "the event says so itself");
  // A write of something that this view does not show.
  server.write("x", { s: 1 });
  const other = watched(connect(sse), { filter: { s: 2 } });
  await clock.advance(1_000);
  const quiet = other.caughtUp(server.write("y", { s: 1 }));
  await clock.advance(26_000);
  await Promise.all([waiting, quiet]);
  for (const nonsense of ["garbage", 5, {}]) await assert.rejects(live.caughtUp(nonsense), /not a position/, "no event would bring it");
});

scene("closed while a stream opens", async ({ clock, server, connect }) => {
  const client = connect(sse);
  const live = watched(client);
  await clock.advance(7);
  live.close();
  await clock.advance(5_000);
  assert.equal(server.streams.size, 0);
  client.live("posts");
  await clock.advance(7);
  client.close();
  await clock.advance(5_000);
  assert.equal(server.streams.size, 0);
});
