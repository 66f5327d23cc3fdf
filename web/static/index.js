// Lists the resources that this server has, from its own OpenAPI document.
const PREFIX = "/api/v1/";

const link = (name, summary) => {
  const [item, anchor, title, text] = ["li", "a", "strong", "span"].map((tag) => document.createElement(tag));
  anchor.href = PREFIX + name;
  title.textContent = name;
  text.textContent = summary;
  anchor.append(title, text);
  item.append(anchor);
  return item;
};

const list = document.getElementById("resources");
const { paths } = await (await fetch("/openapi.json")).json();
const names = Object.keys(paths)
  .filter((path) => path.startsWith(PREFIX) && `${path}/{id}` in paths && paths[path].get)
  .map((path) => path.slice(PREFIX.length));

list.replaceChildren(...names.map((name) => link(name, "what you may read, as JSON")));
document.getElementById("list").textContent = location.origin + PREFIX + (names.includes("posts") ? "posts" : names[0]);
