// The local result: what it holds, in which order, and what it says of itself.

import assert from "node:assert/strict";

import { ids, scene, watched } from "./scene.mjs";

scene("a first result", async ({ clock, server, connect }) => {
  server.write("b", { n: 1 });
  server.write("a", { n: 1 });
  server.write("c", { n: 0 });
  const client = connect();
  assert.equal(client.state, "offline");
  const live = watched(client, { sort: ["-n"] });
  assert.deepEqual([client.state, live.state, live.items, live.complete], ["connecting", "connecting", [], false]);
  await clock.advance(1_000);
  assert.deepEqual(ids(live), ["b", "a", "c"], "ties are broken by the id, in the last key's direction");
  assert.deepEqual([client.state, live.state, live.complete], ["live", "live", true]);
  assert.deepEqual(live.told.states, ["live"]);
  assert.deepEqual(await live.ready, live.items);
  assert.equal(live.etag("a"), server.etag(server.documents.get("a")));
  assert.equal(live.etag("none"), undefined);
});

scene("changes while it is live", async ({ clock, server, connect }) => {
  const live = watched(connect(), { filter: { s: 1 } });
  await clock.advance(1_000);
  live.told.changes.length = 0;
  const before = live.items;
  server.write("a", { s: 1 });
  server.write("b", { s: 2 });
  server.write("b", { s: 1 });
  await clock.advance(100);
  assert.notEqual(live.items, before, "another array, so that identity tells of a change");
  assert.equal(live.items, live.items);
  assert.deepEqual(live.told.changes.length, 1, "several events are one change");
  assert.deepEqual(live.told.changes[0].events.map(({ op, id }) => [op, id]), [["create", "a"], ["enter", "b"]]);
  server.write("a", { s: 1, n: 5 });
  server.write("b", { s: 3 });
  await clock.advance(100);
  server.write("a", null);
  await clock.advance(100);
  assert.deepEqual(live.told.events.map(({ op }) => op), ["create", "enter", "update", "leave", "delete"]);
  assert.deepEqual(live.items, []);
});

scene("a listener that throws stops nobody else", async ({ clock, server, connect }) => {
  const live = watched(connect());
  const thrown = [];
  globalThis.reportError = ({ message }) => thrown.push(message);
  live.on("event", () => {
    throw new Error("mine");
  });
  const heard = [];
  const end = live.on("event", ({ id }) => heard.push(id));
  await clock.advance(1_000);
  server.write("a", {});
  await clock.advance(100);
  end();
  server.write("b", {});
  await clock.advance(100);
  delete globalThis.reportError;
  assert.deepEqual(heard, ["a"], "and the function that `on` gave ends it");
  assert.deepEqual(ids(live), ["a", "b"]);
  assert.deepEqual(thrown, ["mine", "mine"], "it is not hidden either");
});

scene("documents that leave a window are replaced", async ({ clock, server, connect }) => {
  for (let n = 0; n < 100; n++) server.write(`d${100 + n}`, { n });
  const client = connect();
  const live = watched(client, { sort: "n", limit: 3 });
  await clock.advance(1_000);
  assert.deepEqual([ids(live), live.complete], [["d100", "d101", "d102"], false]);
  for (let n = 0; n < 15; n++) server.write(`d${100 + n}`, null);
  await clock.advance(1_000);
  assert.deepEqual(ids(live), ["d115", "d116", "d117"]);
  assert.deepEqual(live.told.states, ["live"], "from what it knows beyond the window");
  const asked = () => server.received.filter(({ type }) => type === "subscribe").length;
  assert.equal(asked(), 1);
  live.on("state", (state) => assert.ok(state !== "live" || live.items.length === 3, "short, and yet live"));
  for (let n = 15; n < 60; n++) server.write(`d${100 + n}`, null);
  await clock.advance(3_000);
  assert.deepEqual(ids(live), ["d160", "d161", "d162"]);
  assert.deepEqual(live.told.states, ["live", "stale", "live"]);
  assert.equal(asked(), 2, "many that leave at once are one query");
  for (let n = 60; n < 99; n++) server.write(`d${100 + n}`, null);
  await clock.advance(10_000);
  assert.deepEqual([ids(live), live.complete], [["d199"], true]);
});

scene("a document that moves over the edge of what is known", async ({ clock, server, connect }) => {
  for (let n = 0; n < 100; n++) server.write(`d${100 + n}`, { n });
  const live = watched(connect(), { sort: ["n"], limit: 2 });
  await clock.advance(1_000);
  server.write("d100", { n: 1_000 });
  server.write("d199", { n: -1 });
  server.write("new", { n: 500 });
  await clock.advance(1_000);
  assert.deepEqual(ids(live), ["d199", "d101"]);
  assert.equal(live.etag("new"), undefined);
});

scene("a small window of a result that grows", async ({ clock, server, connect }) => {
  const live = watched(connect(), { sort: ["n"], limit: 2 });
  await clock.advance(1_000);
  assert.equal(live.complete, true);
  for (let n = 1_000; n > 0; n--) server.write(`d${n}`, { n });
  await clock.advance(1_000);
  assert.deepEqual([ids(live), live.complete], [["d1", "d2"], false]);
  const known = Array.from({ length: 1_000 }, (_, n) => live.etag(`d${n + 1}`)).filter(Boolean);
  assert.ok(known.length < 60, "what is far beyond the window is not kept");
  for (let n = 1; n < 500; n++) server.write(`d${n}`, null);
  await clock.advance(60_000);
  assert.deepEqual(ids(live), ["d500", "d501"]);
});

scene("mass deletions do not become a storm of queries", async ({ clock, server, connect }) => {
  for (let n = 0; n < 2_000; n++) server.write(`d${1_000 + n}`, { n });
  const live = watched(connect(), { sort: ["n"], limit: 1 });
  await clock.advance(1_000);
  for (let n = 0; n < 1_999; n++) {
    server.write(`d${1_000 + n}`, null);
    await clock.advance(5);
  }
  await clock.advance(5_000);
  assert.deepEqual(ids(live), ["d2999"]);
  const asked = server.received.filter(({ type }) => type === "subscribe").length;
  assert.ok(asked < 15, `${asked} queries in ten seconds`);
});

scene("values of every type, missing ones and null", async ({ clock, server, connect }) => {
  const values = [true, "é", "z", "\u{1F600}", "\uFF5E", "Z", 10, 9, -1.5, null, undefined, false, "", "10", "9"];
  values.forEach((n, place) => server.write(`d${10 + place}`, n === undefined ? {} : { n }));
  const live = watched(connect(), { sort: ["n"] });
  const down = watched(connect(), { sort: ["-n"] });
  await clock.advance(1_000);
  const expected = [null, undefined, -1.5, 9, 10, "", "10", "9", "Z", "z", "é", "\uFF5E", "\u{1F600}", false, true];
  assert.deepEqual(live.items.map(({ n }) => n), expected, "as UTF-8 orders text, not as UTF-16 does");
  assert.deepEqual(ids(down), ids(live).reverse());
});

scene("integers and texts in one field", async ({ clock, server, connect }) => {
  server.order = { n: ["integer", "string"] };
  ["10", 9, "9", 10, "NaN", -1].forEach((n, place) => server.write(`d${place}`, { n }));
  const live = watched(connect(), { sort: ["n"] });
  await clock.advance(1_000);
  assert.deepEqual(live.items.map(({ n }) => n), [-1, 9, 10, "10", "9", "NaN"], "a text is a text, whatever it reads like");
});

scene("values that JSON shows as text", async ({ clock, server, connect }) => {
  server.order = { id: ["integer"], d: ["decimal"], t: ["date-time"], b: ["binary"], u: ["decimal", "string"] };
  const decimals = ["-1E+3", "-10", "-9.5", "0", "0E+5", "1E-7", "9", "9.0", "9.01", "10", "1E+1", "1E+6144"];
  decimals.forEach((d, place) => server.write(String(8 + place), { d }));
  const live = watched(connect(), { sort: ["d"] });
  await clock.advance(1_000);
  assert.deepEqual(live.items.map(({ d }) => d), decimals, "by value; equal ones by the id, which is a number");
  server.write("1000", { d: 0.1 });
  server.write("1001", { d: "0.1" });
  server.write("1002", { d: "NaN" });
  server.write("1003", { d: "-Infinity" });
  server.write("1004", { d: "Infinity" });
  server.write("1005", { d: "12345678901234567890.2" });
  server.write("1006", { d: "12345678901234567890.1" });
  server.write("1007", { d: "text" });
  await clock.advance(1_000);
  const order = ids(live).filter((id) => Number(id) >= 1_000);
  assert.deepEqual(order, ["1002", "1003", "1001", "1000", "1006", "1005", "1004", "1007"], "0.1 is more than its decimal");

  const times = ["-000001-01-01T00:00:00.000Z", "1969-12-31T23:59:59.999Z", "2026-01-01T00:00:00.000Z", "+010000-01-01T00:00:00.000Z"];
  times.forEach((t, place) => server.write(String(2_000 + place), { t, s: 2 }));
  server.write("2010", { t: "yesterday", s: 2 });
  const byTime = watched(connect(), { filter: { s: 2 }, sort: ["t"] });
  await clock.advance(1_000);
  assert.deepEqual(byTime.items.map(({ t }) => t), ["yesterday", ...times], "text is less than any time");

  // 0xff, then 0x00 0x00: shorter is less; 0xfb precedes 0xff as bytes and follows it in base64's alphabet.
  ["+w==", "/w==", "AAA="].forEach((b, place) => server.write(String(3_000 + place), { b, s: 3 }));
  const byBytes = watched(connect(), { filter: { s: 3 }, sort: ["b"] });
  await clock.advance(1_000);
  assert.deepEqual(byBytes.items.map(({ b }) => b), ["+w==", "/w==", "AAA="]);
});

scene("texts that break their field's rules", async ({ clock, server, connect }) => {
  server.order = { b: ["binary"], d: ["decimal"] };
  server.write("1", { b: "a-b", d: "1E+999999999" });
  server.write("2", { b: "AAA=", d: "2" });
  const client = connect();
  const [bytes, decimals] = ["b", "d"].map((name) => watched(client, { sort: [name], fields: [name] }));
  await clock.advance(1_000);
  for (const [id, b, d] of [["3", "%", "1E+88888888"], ["4", "AAAA", "3"]]) server.write(id, { b, d });
  await clock.advance(1_000);
  assert.deepEqual([ids(bytes), ids(decimals)], [["3", "1", "2", "4"], ["2", "4", "3", "1"]], "they are texts");
  assert.deepEqual([bytes, decimals].map(({ told }) => told.states), [["live"], ["live"]], "and no reason to connect again");
});

scene("lists and objects where a single value should be", async ({ clock, server, connect }) => {
  const values = [null, [], [3, "a"], 2, [1, 5], { a: 1 }, { a: 1, b: 0 }, [[1]], { b: { c: 4 } }, [[]], { a: [] }, [null], [[{ b: { c: 9 } }]]];
  values.forEach((n, place) => server.write(`d${place}`, { n }));
  const live = watched(connect(), { sort: ["n"] });
  const nested = watched(connect(), { sort: ["-n.b.c"] });
  await clock.advance(1_000);
  // An array inside an array is a value of its own, and so is one inside an object: neither is taken apart.
  assert.deepEqual(ids(live), ["d1", "d0", "d11", "d4", "d3", "d2", "d5", "d6", "d8", "d10", "d9", "d7", "d12"]);
  assert.deepEqual(ids(nested)[0], "d8", "what is in an array inside an array is on no path");
});

scene("how values compare cannot be learned at first", async ({ clock, server, connect }) => {
  server.order = { d: ["decimal"] };
  server.schemaFaults = [500, 429, 503];
  ["9", "10"].forEach((d, place) => server.write(`d${place}`, { d }));
  const live = watched(connect(), { sort: ["d"] });
  await clock.advance(2_000);
  assert.equal(live.state, "connecting", "it does not guess");
  await clock.advance(15_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["d0", "d1"]]);
});

scene("closed before it has told of a change", async ({ clock, server, connect }) => {
  const live = watched(connect());
  await clock.advance(1_000);
  live.told.changes.length = 0;
  live.on("event", () => live.close());
  server.write("a", {});
  await clock.advance(1_000);
  assert.deepEqual([live.told.events.length, live.told.changes], [1, []]);
});

scene("a change of a page that nobody looks at", async ({ clock, server, connect }) => {
  const live = watched(connect());
  await clock.advance(1_000);
  globalThis.document = { hidden: true };
  try {
    const at = { event: 0, change: 0 };
    for (const name of Object.keys(at)) live.on(name, () => (at[name] = clock.now));
    server.write("a", {});
    await clock.advance(1_000);
    assert.ok(at.event);
    assert.equal(at.change, at.event, "its timers may run a minute late");
  } finally {
    delete globalThis.document;
  }
});

scene("a database whose answers take long", async ({ clock, server, connect }) => {
  for (let n = 0; n < 3_000; n++) server.write(`d${1_000 + n}`, { n });
  server.latency = () => 500;
  const live = watched(connect(), { sort: ["n"], limit: 1 });
  await clock.advance(10_000);
  const asked = () => server.received.filter(({ type }) => type === "subscribe").length;
  const before = asked();
  for (let n = 0; n < 2_500; n++) {
    server.write(`d${1_000 + n}`, null);
    await clock.advance(5);
  }
  const more = asked() - before;
  assert.ok(more <= 2, `${more} queries in twelve seconds`);
  await clock.advance(60_000);
  assert.deepEqual(ids(live), ["d3500"]);
});

scene("fields that the order needs are asked for", async ({ clock, server, connect }) => {
  const client = connect();
  client.live("posts", { fields: ["title"], sort: ["-n", "address.city"] });
  client.live("posts", { filter: { s: 1 }, fields: ["title"], sort: ["updated_at"] });
  await clock.advance(1_000);
  const [first, second] = server.received.filter(({ type }) => type === "subscribe");
  assert.deepEqual(first.fields, ["address", "id", "n", "title"]);
  assert.equal(second.fields, undefined, "a change of any field moves it, and only events of all fields tell");
});

scene("more than the server's snapshots hold", async ({ clock, server, connect }) => {
  server.snapshotMax = 10;
  for (let n = 0; n < 30; n++) server.write(`d${10 + n}`, {});
  const client = connect();
  const lives = [undefined, 8, 10].map((limit) => watched(client, { filter: {}, sort: limit === 8 ? ["-id"] : [], limit }));
  const refused = watched(client, { limit: 11 });
  await clock.advance(3_000);
  assert.deepEqual(lives.map(({ items }) => items.length), [10, 8, 10]);
  assert.deepEqual(refused.told.errors, [{ code: "bad_query", message: "limit: at most 10" }]);
  assert.deepEqual([refused.state, refused.error?.code], ["offline", "bad_query"]);
  await assert.rejects(refused.ready, /at most 10/);
});

scene("limits that are none", async ({ server, connect }) => {
  const client = connect();
  for (const limit of [0, -1, 1.5, "5", NaN, Infinity]) assert.throws(() => client.live("posts", { limit }), RangeError);
  assert.deepEqual(server.received, []);
});

scene("queries that cannot be", async ({ clock, server, connect }) => {
  const client = connect();
  const unknown = watched(client, {}, "nope");
  const bad = watched(client, { filter: { nope: 1 } });
  const long = watched(client, { filter: { s: "x".repeat(70_000) } });
  const good = watched(client, {});
  await clock.advance(1_000);
  assert.deepEqual([unknown, bad, long].map(({ told }) => told.errors[0].code), ["unknown_resource", "bad_query", "bad_message"]);
  assert.ok(server.received.every((message) => JSON.stringify(message).length < 65_536), "what is too long is not sent");
  assert.deepEqual([good.state, client.state], ["live", "live"], "the others go on");
});

scene("the server ends a subscription", async ({ clock, server, connect }) => {
  server.write("a", {});
  const live = watched(connect());
  await clock.advance(1_000);
  const [socket] = server.sockets;
  const [id] = socket.subscriptions.keys();
  socket.subscriptions.clear();
  socket.send({ type: "unsubscribed", id, reason: "access_changed" });
  await clock.advance(100);
  assert.deepEqual([live.state, live.told.errors[0].code, live.items], ["offline", "access_changed", []]);
});

scene("a reset while the result is there", async ({ clock, server, connect }) => {
  server.write("a", {});
  server.readMs = () => 1_000;
  const live = watched(connect());
  await clock.advance(2_000);
  server.reset("lagging");
  await clock.advance(500);
  assert.deepEqual([live.state, ids(live), live.position], ["stale", ["a"], undefined], "shown as stale, and not continued");
  server.write("b", {});
  await clock.advance(1_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["a", "b"]]);
  assert.equal(live.told.changes.at(-1).events.length, 0, "a whole result took its place");
});

scene("a reset because rights have changed", async ({ clock, server, connect }) => {
  server.write("a", { secret: true });
  server.write("b", {});
  server.readMs = () => 1_000;
  const live = watched(connect());
  await clock.advance(2_000);
  assert.deepEqual(ids(live), ["a", "b"]);
  server.grant("ada", false);
  await clock.advance(500);
  assert.deepEqual([live.state, live.items], ["connecting", []], "what may no longer be seen is gone at once");
  assert.deepEqual(live.told.changes.at(-1).items, []);
  await clock.advance(1_000);
  server.write("c", { secret: true });
  server.write("d", {});
  await clock.advance(100);
  assert.deepEqual([live.state, ids(live)], ["live", ["b", "d"]], "and events come under the view's new name");
});

scene("resets while a snapshot is under way", async ({ clock, server, connect }) => {
  for (const id of "abcdefg") server.write(id, {});
  const live = watched(connect());
  await clock.advance(30);
  const [socket] = server.sockets;
  await clock.advance(100);
  const [subscription] = socket.subscriptions.values();
  // A page of the old snapshot, a reset, a page of the next, another reset.
  const page = (id) => ({ type: "snapshot", id: subscription.id, view: subscription.view, items: [{ document: { id }, etag: "" }], more: true });
  socket.send({ type: "reset", view: subscription.view, reason: "lagging" });
  socket.send(page("x"));
  socket.send({ type: "reset", view: subscription.view, reason: "lagging" });
  socket.send(page("y"));
  server.reset("history_lost");
  server.write("h", {});
  await clock.advance(1_000);
  assert.deepEqual([live.state, ids(live).join("")], ["live", "abcdefgh"]);
});

scene("frames that a client must not believe", async ({ clock, server, connect }) => {
  server.write("a", {});
  server.readMs = () => 500;
  const live = watched(connect());
  await clock.advance(100);
  const [socket] = server.sockets;
  const [{ view }] = socket.subscriptions.values();
  const event = { type: "event", view, op: "create", resource: "posts", id: "x", document: { id: "x" }, etag: "", at: "" };
  socket.send({ ...event, position: server.position(1) });
  socket.send({ type: "position", position: server.position(1_000), as_of: new Date(Date.now()).toISOString() });
  await clock.advance(1_000);
  assert.deepEqual([ids(live), live.position], [["a"], server.position()], "before `ready`");
  socket.send({ ...event, position: server.position(1) });
  socket.send({ ...event, view: "another", position: server.position(99) });
  socket.send({ type: "ready", id: "77", view: "another", position: server.position(99), complete: true });
  socket.send({ type: "something new", id: "1" });
  await clock.advance(1_000);
  assert.deepEqual([ids(live), live.position], [["a"], server.position()], "repeated, of other views, and unknown ones");
});
