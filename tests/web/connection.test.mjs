// The connection: coming back, resuming, signing in, and saying when it cannot vouch for what it has.

import assert from "node:assert/strict";

import { ids, scene, watched } from "./scene.mjs";

const kinds = (server) => server.received.map(({ type }) => type);
const subscribes = (server) => server.received.filter(({ type }) => type === "subscribe");
const the = (server) => [...server.sockets][0];

scene("cut, and resumed", async ({ clock, server, connect }) => {
  server.write("a", {});
  const client = connect();
  const live = watched(client);
  await clock.advance(1_000);
  const { position } = live;
  the(server).end(1006);
  await clock.advance(6);
  assert.deepEqual([client.state, live.state, ids(live)], ["stale", "stale", ["a"]]);
  server.write("b", {});
  server.write("a", null);
  await clock.advance(2_000);
  assert.deepEqual([client.state, live.state, ids(live)], ["live", "live", ["b"]]);
  assert.deepEqual(subscribes(server)[1].since, { view: the(server).subscriptions.values().next().value.view, position });
  assert.deepEqual(live.told.events.map(({ op, id }) => [op, id]), [["create", "b"], ["delete", "a"]], "nothing twice");
});

scene("cut, and too late to resume", async ({ clock, server, connect }) => {
  server.write("a", {});
  const live = watched(connect());
  await clock.advance(1_000);
  the(server).end(1006);
  server.write("b", {});
  server.reach = server.head;
  await clock.advance(3_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["a", "b"]]);
});

scene("cut in the middle of what was missed", async ({ clock, server, connect }) => {
  const live = watched(connect());
  await clock.advance(1_000);
  the(server).end(1006);
  await clock.advance(10);
  for (let n = 10; n < 30; n++) server.write(`d${n}`, {});
  server.latency = () => 100;
  const cut = live.on("event", ({ id }) => id === "d19" && (cut(), the(server).end(1006)));
  await clock.advance(20_000);
  assert.equal(live.items.length, 20);
  assert.equal(live.told.events.length, 20, "each once");
});

scene("a half-open connection", async ({ clock, server, connect }) => {
  const live = watched(connect());
  await clock.advance(1_000);
  the(server).hang();
  server.write("a", {});
  await clock.advance(29_000);
  assert.equal(live.state, "live");
  await clock.advance(6_000);
  assert.equal(live.state, "stale", "silent for longer than a heartbeat: it does not say that it is live");
  await clock.advance(15_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["a"]]);
});

scene("a server that sends nothing but heartbeats", async ({ clock, server, connect }) => {
  const live = watched(connect());
  await clock.advance(3_600_000);
  assert.deepEqual(live.told.states, ["live"]);
  assert.ok(server.received.length < 70, "tokens are renewed, and no pings are needed");
});

scene("a frozen page", async ({ clock, server, connect }) => {
  const live = watched(connect());
  await clock.advance(1_000);
  clock.freeze(40_000);
  server.write("a", {});
  await clock.advance(1_000);
  assert.deepEqual([live.told.states, live.state], [["live", "stale", "live"], "live"]);
  assert.deepEqual(kinds(server).filter((type) => type === "subscribe").length, 1, "the connection had survived");
  clock.freeze(3_600_000);
  the(server)?.hang();
  await clock.advance(1_000);
  assert.equal(live.state, "stale");
  server.write("b", {});
  await clock.advance(15_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["a", "b"]]);
});

scene("a page that was frozen for less than a heartbeat", async ({ clock, server, connect }) => {
  const live = watched(connect());
  await clock.advance(1_000);
  clock.freeze(15_000);
  await clock.advance(1_000);
  assert.deepEqual([live.told.states, live.state], [["live", "stale", "live"], "live"], "it asks before it says that it is live");
});

scene("an expired token is no reason to wait", async ({ clock, server, connect }) => {
  const live = watched(connect());
  await clock.advance(20_000);
  Math.random = () => 0.99;
  the(server).end(4001);
  await clock.advance(300);
  assert.deepEqual(live.told.states, ["live", "stale", "live"]);
});

scene("what a browser tells of the network and the page", async ({ clock, server, connect }) => {
  const page = new EventTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.removeEventListener = page.removeEventListener.bind(page);
  globalThis.document = new EventTarget();
  globalThis.document.visibilityState = "visible";
  try {
    const client = connect();
    const live = watched(client);
    await clock.advance(1_000);
    server.up = false;
    page.dispatchEvent(new Event("offline"));
    assert.deepEqual([client.state, live.state], ["offline", "offline"], "at once");
    await clock.advance(60_000);
    server.up = true;
    server.write("a", {});
    page.dispatchEvent(new Event("online"));
    await clock.advance(2_000);
    assert.deepEqual([live.state, ids(live)], ["live", ["a"]], "without waiting for the next attempt");
    the(server).hang();
    server.write("b", {});
    globalThis.document.dispatchEvent(new Event("visibilitychange"));
    await clock.advance(8_000);
    assert.deepEqual([live.state, ids(live)], ["live", ["a", "b"]], "who looks at the page does not wait for a heartbeat");
    const before = server.received.length;
    globalThis.document.visibilityState = "hidden";
    globalThis.document.dispatchEvent(new Event("visibilitychange"));
    await clock.advance(100);
    assert.equal(server.received.length, before);
    client.close();
    globalThis.document.visibilityState = "visible";
    page.dispatchEvent(new Event("online"));
    await clock.advance(10_000);
    assert.equal(server.received.length, before, "a closed client does nothing more");
  } finally {
    for (const name of ["addEventListener", "removeEventListener", "document"]) delete globalThis[name];
  }
});

scene("a server that is away for an hour", async ({ clock, server, connect }) => {
  const client = connect();
  const live = watched(client);
  await clock.advance(1_000);
  server.stopServing();
  const attempts = [];
  const { WebSocket } = server;
  client._options.WebSocket = class extends WebSocket {
    constructor(...given) {
      super(...given);
      attempts.push(clock.now);
    }
  };
  await clock.advance(3_600_000);
  assert.deepEqual([client.state, live.state], ["offline", "offline"]);
  const all = attempts.length + server.requests.length;
  assert.ok(all > 100 && all < 600, `${all} attempts in an hour`);
  const first = attempts.filter((at) => at < attempts[0] + 10_000);
  assert.ok(first.length < 12, `${first.length} attempts in the first ten seconds`);
  server.up = true;
  server.write("a", {});
  await clock.advance(120_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["a"]]);
  assert.ok(client.states.filter((state) => state === "offline").length >= 1);
});

scene("a server that accepts and closes at once", async ({ clock, server, connect }) => {
  const client = connect();
  watched(client);
  const welcomed = [];
  client.on("authenticated", () => {
    welcomed.push(clock.now);
    the(server).end(1006);
  });
  await clock.advance(600_000);
  assert.ok(welcomed.length < 70, `${welcomed.length} connections in ten minutes`);
});

for (const code of [1000, 1006, 1012, 4000, 4001, 4008, 4029, 4499]) {
  scene(`closed with ${code}: comes back`, async ({ clock, server, connect }) => {
    const live = watched(connect());
    await clock.advance(1_000);
    the(server).end(code);
    server.write("a", {});
    await clock.advance(5_000);
    assert.deepEqual([live.state, ids(live)], ["live", ["a"]]);
  });
}

for (const code of [4500, 4503, 4509, 4999]) {
  scene(`closed with ${code}: stays away until it is told otherwise`, async ({ clock, server, connect }) => {
    server.write("a", {});
    const client = connect();
    const live = watched(client);
    const errors = [];
    client.on("error", (error) => errors.push(error.code));
    await clock.advance(1_000);
    the(server).end(code);
    await clock.advance(3_600_000);
    assert.deepEqual([client.state, live.state, errors, ids(live)], ["offline", "offline", [code], ["a"]]);
    assert.equal(kinds(server).filter((type) => type === "auth").length, 1);
    const later = watched(client, { filter: { s: 1 } });
    await clock.advance(1_000);
    assert.equal(later.state, "offline");
    await client.renew();
    await clock.advance(1_000);
    assert.deepEqual([client.state, live.state, later.state], ["live", "live", "live"]);
  });
}

scene("a server that goes away in order", async ({ clock, server, connect }) => {
  const live = watched(connect());
  await clock.advance(1_000);
  const old = the(server);
  old.send({ type: "goaway", reason: "draining", retry_after_ms: [3_000, 3_000] });
  old.end(4000);
  await clock.advance(2_900);
  assert.equal(server.sockets.size, 0, "not before the time that it was given");
  server.write("a", {});
  await clock.advance(1_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["a"]]);
  // And one that says so and then hangs.
  the(server).send({ type: "goaway", reason: "draining", retry_after_ms: [3_000, 3_000] });
  const hung = the(server);
  await clock.advance(4_000);
  assert.notEqual(the(server), hung);
  assert.equal(live.state, "live");
});

scene("a token that is about to expire", async ({ clock, server, connect }) => {
  const asked = [];
  const live = watched(connect({ getToken: ({ refresh }) => (asked.push(refresh), "ada-1") }));
  await clock.advance(860_000);
  assert.ok(!asked.includes(true), "there is time");
  await clock.advance(20_000);
  assert.deepEqual(asked.slice(-1), [true]);
  await clock.advance(3_600_000);
  assert.deepEqual(live.told.states, ["live"], "unnoticed");
  assert.equal(subscribes(server).length, 1);
});

for (const seconds of [60, 59, 1, 0]) {
  scene(`tokens that all end within ${seconds} seconds`, async ({ clock, server, connect }) => {
    const asked = [];
    watched(connect({ getToken: ({ refresh }) => (asked.push(refresh), "ada-1") }));
    await clock.advance(1_000);
    const heard = kinds(server).length;
    for (let second = 0; second < 10; second++) {
      the(server).send({ type: "auth_expiring", seconds });
      await clock.advance(100);
      assert.ok(kinds(server).length - heard <= second, "none is renewed at once");
      await clock.advance(900);
    }
    assert.ok(asked.length <= 12, `${asked.length} times in ten seconds`);
  });
}

scene("tokens that last for seconds", async ({ clock, server, connect }) => {
  server.tokenSeconds = 10;
  const live = watched(connect());
  await clock.advance(600_000);
  assert.deepEqual(live.told.states, ["live"]);
  const renewed = kinds(server).filter((type) => type === "auth").length;
  assert.ok(renewed > 60 && renewed < 200, `${renewed} times in ten minutes`);
});

scene("a token service that is away for a while", async ({ clock, server, connect }) => {
  let away = false;
  const getToken = async () => {
    if (away) throw new TypeError("fetch failed");
    return "ada-1";
  };
  const client = connect({ getToken });
  const live = watched(client);
  await clock.advance(1_000);
  away = true;
  await clock.advance(1_000_000);
  assert.notEqual(live.state, "live");
  away = false;
  await clock.advance(60_000);
  assert.equal(live.state, "live");
});

scene("an expired token after a long sleep", async ({ clock, server, connect }) => {
  let token = "old";
  const client = connect({ getToken: ({ refresh }) => (token = refresh ? "ada-1" : token) });
  const live = watched(client);
  await clock.advance(2_000);
  assert.equal(live.state, "live", "4501 for a cached token is not the end: another one is asked for");
  assert.deepEqual(kinds(server).filter((type) => type === "auth").length, 2);
});

scene("a token that nobody accepts", async ({ clock, server, connect }) => {
  let token = "wrong";
  const client = connect({ getToken: async () => token });
  const live = watched(client);
  const errors = [];
  client.on("error", ({ code }) => errors.push(code));
  await clock.advance(60_000);
  assert.deepEqual([errors, client.state, live.state], [[4501], "offline", "offline"]);
  assert.equal(kinds(server).length, 2);
  token = "bob-1";
  await client.renew();
  await clock.advance(1_000);
  assert.equal(live.state, "live");
});

scene("signing in on a live connection", async ({ clock, server, connect }) => {
  server.write("a", { secret: true });
  server.write("b", {});
  let token = null;
  const client = connect({ getToken: () => token });
  const users = [];
  client.on("authenticated", ({ username }) => users.push(username));
  const live = watched(client);
  await clock.advance(1_000);
  assert.deepEqual([ids(live), users], [["b"], []]);
  token = "ada-1";
  await client.renew();
  await clock.advance(1_000);
  assert.deepEqual([ids(live), users, live.state], [["a", "b"], ["ada"], "live"]);
  token = "bob-1";
  await client.renew();
  await clock.advance(5_000);
  assert.deepEqual([ids(live), users, live.state], [["b"], ["ada", "bob"], "live"], "another user needs another connection");
  token = null;
  await client.renew();
  await clock.advance(5_000);
  assert.deepEqual([ids(live), live.state, kinds(server).at(-1)], [["b"], "live", "subscribe"]);
});

scene("a field that only who signs in may sort by", async ({ clock, server, connect }) => {
  server.secretOrder = { d: ["decimal"] };
  ["9", "10"].forEach((d, place) => server.write(`d${place}`, { d }));
  let token = null;
  const client = connect({ getToken: () => token });
  const former = watched(client, { sort: ["d"] });
  await clock.advance(1_000);
  former.close();
  token = "ada-1";
  await client.renew();
  const live = watched(client, { sort: ["d"] });
  await clock.advance(5_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["d0", "d1"]], "9 before 10: as numbers, not as texts");
});

scene("a token that comes when the connection has gone", async ({ clock, server, connect }) => {
  let answer;
  let slow = false;
  const client = connect({ getToken: () => (slow ? new Promise((resolve) => (answer = resolve)) : "ada-1") });
  const live = watched(client);
  await clock.advance(1_000);
  slow = true;
  const renewed = client.renew();
  the(server).end(1006);
  await clock.advance(10_000);
  assert.equal(kinds(server).filter((type) => type === "auth").length, 1);
  slow = false;
  answer("ada-1");
  await renewed;
  await clock.advance(10_000);
  assert.equal(live.state, "live");
  assert.equal(server.sockets.size, 1);
});

scene("an API key", async ({ clock, server, connect }) => {
  const client = connect({ getToken: () => "hw_key" });
  watched(client);
  await clock.advance(100);
  assert.deepEqual(server.received[0], { type: "auth", api_key: "hw_key" });
});

scene("closed while it connects", async ({ clock, server, connect }) => {
  let answer;
  const waiting = connect({ getToken: () => new Promise((resolve) => (answer = resolve)) });
  const live = watched(waiting);
  await clock.advance(10);
  const awaited = assert.rejects(live.ready, /closed/);
  waiting.close();
  waiting.close();
  answer("ada-1");
  const early = connect();
  early.live("posts");
  early.close();
  const opening = connect();
  opening.live("posts");
  await clock.advance(7);
  opening.close();
  await clock.advance(60_000);
  await awaited;
  assert.deepEqual([server.sockets.size, server.received, waiting.state, live.state], [0, [], "offline", "offline"]);
  assert.throws(() => waiting.live("posts"), /closed/);
  await assert.rejects(live.caughtUp("1"), /closed/);
});

scene("closed and asked again at once", async ({ clock, server, connect }) => {
  server.write("a", {});
  const client = connect();
  let live = watched(client);
  for (const pause of [0, 3, 7, 12, 20, 40, 200]) {
    await clock.advance(pause);
    live.close();
    live.close();
    live = watched(client);
  }
  server.write("b", {});
  await clock.advance(2_000);
  assert.deepEqual([live.state, ids(live)], ["live", ["a", "b"]]);
  assert.equal(the(server).subscriptions.size, 1);
  live.close();
  await clock.advance(1_000);
  assert.equal(the(server).subscriptions.size, 0);
  assert.deepEqual(ids(live), ["a", "b"], "what it had stays readable");
});

scene("equal queries share, and the last one ends it", async ({ clock, server, connect }) => {
  server.write("a", {});
  const client = connect();
  const one = watched(client, { filter: { s: 1 }, sort: ["-n"] });
  const two = watched(client, { filter: { s: 1 }, sort: "-n" });
  await clock.advance(1_000);
  assert.equal(subscribes(server).length, 1);
  const late = watched(client, { filter: { s: 1 }, sort: ["-n"] });
  assert.equal(late.state, "live", "it has the result already");
  await late.ready;
  one.close();
  two.close();
  server.write("b", { s: 1 });
  await clock.advance(1_000);
  assert.deepEqual([one.told.events.length, late.told.events.length], [0, 1]);
  assert.ok(!kinds(server).includes("unsubscribe"));
  late.close();
  await clock.advance(1_000);
  assert.deepEqual(kinds(server).at(-1), "unsubscribe");
});

scene("one view in two orders", async ({ clock, server, connect }) => {
  for (const id of "abcd") server.write(id, {});
  const client = connect();
  const lives = [watched(client, { sort: ["id"], limit: 2 }), watched(client, { sort: ["-id"], limit: 2 })];
  // What the client cannot know to be the same, the server refuses.
  const { sockets } = server;
  await clock.advance(2_000);
  assert.deepEqual(lives.map(ids), [["a", "b"], ["d", "c"]]);
  assert.equal(sockets.size, 2, "a connection has each view once, so there are two");
  lives[1].close();
  await clock.advance(1_000);
  assert.equal(sockets.size, 1);
});

scene("a view in another spelling", async ({ clock, server, connect }) => {
  const client = connect();
  watched(client, { filter: { s: 1 } });
  await clock.advance(1_000);
  const [subscription] = the(server).subscriptions.values();
  const view = the(server).viewOf({ filter: { s: 2 } });
  subscription.view = view; // so that the server finds the next one to be the same
  const other = watched(client, { filter: { s: 2 } });
  await clock.advance(2_000);
  assert.deepEqual([other.state, server.sockets.size], ["live", 2]);
});

scene("more queries than one connection takes", async ({ clock, server, connect }) => {
  const arrived = [];
  const { received } = server;
  received.push = (message) => arrived.push([clock.now, message.type]);
  const client = connect();
  const lives = Array.from({ length: 230 }, (_, n) => watched(client, { filter: { s: n } }));
  await clock.advance(30_000);
  assert.ok(lives.every(({ state }) => state === "live"));
  assert.deepEqual([...server.sockets].map(({ subscriptions }) => subscriptions.size).sort(), [100, 100, 30]);
});

scene("many messages keep within what a connection may send", async ({ clock, server, connect }) => {
  const client = connect();
  watched(client);
  await clock.advance(10_000);
  const arrived = [];
  server.received.push = () => arrived.push(clock.now);
  for (let n = 0; n < 300; n++) {
    const live = client.live("posts", { filter: { s: n } });
    await clock.advance(10);
    live.close();
  }
  await clock.advance(60_000);
  // The server's own bucket: 150, and 20 a second.
  let allowance = 150;
  let last = arrived[0];
  for (const at of arrived) {
    allowance = Math.min(150, allowance + ((at - last) * 20) / 1_000) - 1;
    last = at;
    assert.ok(allowance > 0, `too many messages at ${at}`);
  }
  assert.equal(the(server).subscriptions.size, 1, "and nothing is left behind");
});

scene("waiting for one's own write", async ({ clock, server, connect }) => {
  const client = connect();
  const live = watched(client);
  const early = live.caughtUp(server.write("a", {})).then(() => ids(live));
  await clock.advance(1_000);
  assert.deepEqual(await early, ["a"], "before the first result");
  server.latency = () => 50;
  const waiting = Array.from({ length: 200 }, (_, n) => live.caughtUp(server.write(`b${n}`, {})).then(() => live.items.length));
  await clock.advance(1_000);
  assert.ok((await Promise.all(waiting)).every((length, n) => length >= n + 2));
  assert.ok(kinds(server).filter((type) => type === "ping").length < 5, "few pings answer for many");
  await live.caughtUp(null);
  await live.caughtUp(server.position(3));
  const bad = assert.rejects(live.caughtUp("bad"), /not a position/);
  const good = live.caughtUp(server.write("c", {}));
  await clock.advance(1_000);
  await Promise.all([bad, good]);
});

scene("waiting for one's own write on a half-open connection", async ({ clock, server, connect }) => {
  const live = watched(connect());
  await clock.advance(1_000);
  the(server).hang();
  let done = false;
  const waiting = live.caughtUp(server.write("a", {})).then(() => (done = true));
  await clock.advance(4_000);
  assert.equal(done, false);
  await clock.advance(6_000);
  assert.equal(done, true, "who waits finds out sooner than by the heartbeat");
  await waiting;
  assert.deepEqual(ids(live), ["a"]);
  the(server).hang();
  const never = assert.rejects(live.caughtUp(server.write("b", {})), /closed/);
  live.close();
  await never;
});

scene("requests of the API", async ({ clock, server, connect }) => {
  let token = "old";
  const client = connect({ getToken: ({ refresh }) => (token = refresh ? "bob-1" : token) });
  const run = async (...given) => {
    const answer = client.fetch(...given);
    await clock.advance(1_000);
    return (await answer).json();
  };
  assert.equal((await run("users/me")).user.username, "bob", "refused once, and again with another token");
  assert.deepEqual(server.requests.map((request) => request.token), ["old", "bob-1"]);
  const made = await run("/posts", { method: "POST", body: { title: "A" } });
  assert.deepEqual([made.path, made.body, server.requests.length], ["posts", '{"title":"A"}', 3]);
  token = "wrong";
  const anonymous = connect({ getToken: undefined });
  const answer = anonymous.fetch("posts/1", { headers: { "If-Match": '"1"' } });
  await clock.advance(100);
  assert.equal((await answer).status, 200);
  assert.equal(server.requests.at(-1).token, null);
});

scene("addresses of servers", async ({ clock, server, connect }) => {
  const urls = [];
  const { WebSocket } = server;
  class Seen extends WebSocket {
    constructor(url, protocol) {
      super(url, protocol);
      urls.push([url, protocol]);
    }
  }
  const { Headwater } = await import("../../web/headwater.js");
  for (const url of ["https://host", "wss://host/", "https://host/api/v1/", "https://host/under/here"]) {
    const client = new Headwater(url, { WebSocket: Seen });
    client.live("posts");
    await clock.advance(1);
    client.close();
  }
  const place = "wss://host/api/v1/ws";
  assert.deepEqual(urls.map(([url]) => url), [place, place, place, "wss://host/under/here/api/v1/ws"]);
  assert.ok(urls.every(([, protocol]) => protocol === "headwater.v1"));
});

scene("the lag", async ({ clock, server, connect }) => {
  const client = connect();
  watched(client);
  await clock.advance(1_000);
  server.write("a", {});
  await clock.advance(100);
  assert.equal(client.lag, 0);
  server.latency = () => 405;
  server.write("b", {});
  await clock.advance(1_000);
  assert.equal(client.lag, 400, "more than the quickest");
  server.stopServing();
  await clock.advance(10_000);
  assert.ok(client.lag > 9_000, "while nothing is heard it grows");
});

scene("a constructor that throws", async ({ clock, server, connect }) => {
  // As a content security policy makes it.
  let refused = true;
  const { WebSocket } = server;
  class Refusing {
    constructor(...given) {
      if (refused) throw new DOMException("refused", "SecurityError");
      return new WebSocket(...given);
    }
  }
  const live = watched(connect({ WebSocket: Refusing, transport: "websocket" }));
  await clock.advance(10_000);
  assert.equal(live.state, "offline");
  refused = false;
  await clock.advance(60_000);
  assert.equal(live.state, "live");
});

scene("a frame that cannot be read", async ({ clock, server, connect }) => {
  const live = watched(connect());
  await clock.advance(1_000);
  const socket = the(server);
  server.write("a", {});
  socket.onmessage({ data: '{"type":"event","view":' });
  await clock.advance(3_000);
  assert.notEqual(the(server), socket, "to go on without it would be stale in silence");
  assert.deepEqual([live.told.states, ids(live)], [["live", "stale", "live"], ["a"]]);
});

scene("listeners that end what they listen to", async ({ clock, server, connect }) => {
  server.write("a", {});
  const client = connect();
  const lives = Array.from({ length: 6 }, (_, n) => watched(client, { filter: n ? { s: n } : {} }));
  lives[0].on("state", () => lives[0].close());
  lives[1].on("event", () => lives[1].close());
  lives[2].on("change", () => lives[2].close());
  lives[3].on("state", (state) => state === "stale" && lives[3].close());
  await clock.advance(1_000);
  server.write("b", { s: 1 });
  await clock.advance(1_000);
  the(server).end(1006);
  await clock.advance(5_000);
  server.reset("lagging");
  await clock.advance(5_000);
  assert.deepEqual(lives.map(({ state }) => state), ["offline", "offline", "offline", "offline", "live", "live"]);
  assert.equal(the(server).subscriptions.size, 2);
  client.on("state", () => client.close());
  the(server).end(1006);
  await clock.advance(60_000);
  assert.equal(server.sockets.size, 0);
  assert.equal(client.state, "offline");
});
