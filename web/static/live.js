// Draws the live protocol from this server's own AsyncAPI document.
import { append, fill, h } from "./dom.js";

/** Text with `code` between backquotes. */
function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

const nameOf = (reference) => reference.split("/").at(-1);

/** A schema in a few words. */
function typeOf(schema) {
  if (schema.$ref) return nameOf(schema.$ref);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf || schema.oneOf) return [...new Set((schema.anyOf ?? schema.oneOf).map(typeOf))].join(" | ");
  if (schema.type === "array") {
    const items = Array.isArray(schema.items) ? schema.items.map(typeOf).join(", ") : typeOf(schema.items ?? {});
    return `[${items}${Array.isArray(schema.items) ? "" : " …"}]`;
  }
  return schema.type ?? "any";
}

function limitsOf(schema) {
  const shown = [
    ["minLength", "at least", "characters"], ["maxLength", "at most", "characters"], ["minimum", "at least", ""],
    ["maximum", "at most", ""], ["minItems", "at least", "items"], ["maxItems", "at most", "items"],
  ];
  return shown
    .filter(([name]) => schema[name] !== undefined)
    .map(([name, words, unit]) => `${words} ${schema[name].toLocaleString("en")} ${unit}`.trim())
    .join(", ");
}

function table(heads, rows) {
  return h("div.scroll", { tabindex: "0", role: "group", "aria-label": heads.join(", ") },
    h("table", {},
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))))));
}

function fieldsOf(schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => [
    h("code", {}, name),
    h("span", { class: "soft" }, typeOf(field)),
    [
      required.has(name) ? "" : "optional",
      field.default !== undefined && field.default !== null && !required.has(name)
        ? `by default ${JSON.stringify(field.default)}` : "",
      limitsOf(field),
    ].filter(Boolean).join("; "),
  ]);
  return table(["field", "type", ""], rows);
}

function messageCard(name, components, side) {
  const message = components.messages[name];
  const schema = components.schemas[nameOf(message.payload.$ref)];
  const paragraphs = message.description.split(/\n\s*\n/);
  return h("article.item", { id: `message-${name}` },
    h("h3", {}, name, h("span", { class: `tag ${side}` }, side === "client" ? "you send" : "you receive")),
    paragraphs.map((paragraph) => h("p", {}, prose(paragraph.replace(/\s+/g, " ")))),
    h("div.parts", {},
      fieldsOf(schema),
      h("pre", { tabindex: "0", "aria-label": `Example of ${name}` },
        JSON.stringify(message.examples[0].payload, null, 2))));
}

function connecting(description) {
  const secure = location.protocol === "https:" ? "wss" : "ws";
  const { pathname } = description.servers.websocket;
  const { channels } = description;
  const list = channels.stream.parameters.resource.enum[0] ?? "posts";
  return [
    h("div.connect", {},
      h("pre", { tabindex: "0", "aria-label": "WebSocket in a browser" },
        `import { Headwater } from "${location.origin}/client/headwater.js";\n\n` +
        `const live = new Headwater("${location.origin}").live("${list}", { limit: 50 });\n` +
        `live.on("change", () => console.log(live.items));`),
      h("pre", { tabindex: "0", "aria-label": "WebSocket in a terminal" },
        `websockets ${secure}://${location.host}${pathname}${channels.live.address}`),
      h("pre", { tabindex: "0", "aria-label": "Server-Sent Events in a terminal" },
        `curl -N -H 'Accept: text/event-stream' ${location.origin}${pathname}/${list}`)),
  ];
}

function draw(description) {
  const { channels, components, info, operations } = description;
  const requests = Object.entries(operations).filter(([, one]) => one.action === "receive").map(([name]) => name);
  const answers = Object.keys(components.messages).filter((name) => !requests.includes(name));
  const sections = [
    ["Connecting", "connecting", [], () => [
      h("p", {}, prose(description.servers.websocket.description)),
      connecting(description),
      h("p", {}, prose(channels.live.description)),
      h("p", {}, prose(channels.stream.description)),
    ]],
    ["Signing in", "signing-in", [], () => [
      h("p", {}, "Without any of these a connection is anonymous, and sees what anonymous callers may read."),
      h("ul", {}, Object.values(components.securitySchemes).map((one) => h("li", {}, prose(one.description)))),
    ]],
    ["Client to server", "client", requests, () => [
      h("p", {}, prose("Unknown fields are refused. What cannot be carried out is answered with `error`.")),
      requests.map((name) => messageCard(name, components, "client")),
    ]],
    ["Server to client", "server", answers, () => answers.map((name) => messageCard(name, components, "server"))],
    ["Closing", "closing", [], () => table(["code", "why", "connect again"], channels.live["x-close-codes"].map((one) =>
      [h("code", {}, one.code), prose(one.reason), one.reconnect ? "yes" : "no"]))],
    ["Errors", "errors", [], () => table(["code", ""], channels.live["x-error-codes"].map((one) =>
      [h("code", {}, one.code), prose(one.meaning)]))],
  ];
  const main = document.getElementById("main");
  fill(main, h("h1", {}, info.title), h("p.lead", {}, prose(info.description)));
  for (const [title, id, , content] of sections) append(main, [h("h2", { id }, title), content()]);
  fill(document.getElementById("contents"), sections.map(([title, id, messages]) => [
    h("a", { href: `#${id}` }, title),
    messages.map((name) => h("a.message", { href: `#message-${name}` }, name)),
  ]));
  // The target of an address with a fragment has only now come to be.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

const answer = await fetch("/asyncapi.json").catch(() => null);
if (answer?.ok) draw(await answer.json());
else fill(document.getElementById("main"), h("p", { role: "alert" }, "The server does not answer. Load the page again."));
