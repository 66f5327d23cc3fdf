"""The browser client: its size, its types, and its behaviour with a scripted server."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import pytest

from tests.web.conftest import ROOT, TOOLS, Node

CLIENT = ROOT / "web" / "headwater.js"
HERE = Path(__file__).parent

# What customers write against the declarations, and what must not compile.
USE = """
import { Headwater, type Change, type Live, type State } from "./headwater.js";
const client = new Headwater("https://host", { getToken: async ({ refresh }) => (refresh ? "a" : null) });
const posts: Live = client.live("posts", { filter: { status: "published" }, sort: "-created_at", limit: 5 });
const off: () => void = posts.on("change", ({ items, events }: Change) => items[0].title + events[0].op);
client.on("state", (state: State) => off());
posts.caughtUp((await client.fetch("posts", { method: "POST", body: { title: "A" } })).headers.get("X-Position"));
// @ts-expect-error there is no such event
posts.on("changed", () => {});
// @ts-expect-error there is no such option
client.live("posts", { order: "title" });
// @ts-expect-error queries are made by a client
new (await import("./headwater.js")).Live();
"""

# The declarations are written by hand: the implementation must have what they say, and nothing public beyond it.
CONFORMS = """
import type * as declared from "./headwater.js";
import * as actual from "./actual.js";
type Public<T> = { [Name in keyof T]: T[Name] };
const client: Public<declared.Headwater> = null as unknown as Public<Omit<actual.Headwater, "live">> & {
  live: (...given: Parameters<actual.Headwater["live"]>) => declared.Live;
};
const live: Public<declared.Live> = null as unknown as Public<actual.Live>;
type Given = ConstructorParameters<typeof declared.Headwater>;
const made: (...given: Given) => unknown = (...given) => new actual.Headwater(...given);
type Undeclared = Exclude<keyof actual.Headwater, keyof declared.Headwater | `_${string}`>
  | Exclude<keyof actual.Live, keyof declared.Live | `_${string}`>
  | Exclude<keyof typeof actual, keyof typeof declared>;
const none: [Undeclared] extends [never] ? true : Undeclared = true;
export { client, live, made, none };
"""


def test_size() -> None:
    """At most 12 KB on the wire, comments included: there is no build step that would take them out."""
    assert len(gzip.compress(CLIENT.read_bytes(), 9)) <= 12 * 1024


def test_it_depends_on_nothing() -> None:
    """One module that imports no other and names no host."""
    text = CLIENT.read_text("utf-8")
    assert re.findall(r"^\s*import\b|\bimport\(|\brequire\(", text, re.MULTILINE) == []
    assert re.findall(r"(?:https?|wss?)://", text) == []


def test_types(node: Node, tmp_path: Path) -> None:
    """The module is sound by its own JSDoc, and has what its declarations say."""
    compiler = str(TOOLS / "node_modules" / "typescript" / "bin" / "tsc")
    node(compiler, "-p", str(TOOLS))
    (tmp_path / "headwater.d.ts").write_bytes((ROOT / "web" / "headwater.d.ts").read_bytes())
    (tmp_path / "actual.js").write_bytes(CLIENT.read_bytes())
    (tmp_path / "use.ts").write_text(USE)
    (tmp_path / "conforms.ts").write_text(CONFORMS)
    (tmp_path / "tsconfig.json").write_text(
        (TOOLS / "tsconfig.json").read_text().replace("../../web/headwater.js", "use.ts")
    )
    node(compiler, "-p", str(tmp_path))
    config = (tmp_path / "tsconfig.json").read_text()
    (tmp_path / "tsconfig.json").write_text(config.replace("use.ts", "conforms.ts"))
    node(compiler, "-p", str(tmp_path))


@pytest.mark.parametrize("name", ["connection", "fallback", "results"])
def test_with_a_scripted_server(node: Node, name: str) -> None:
    """What the client does when the server, the network and the machine do what they may."""
    node("--test", str(HERE / f"{name}.test.mjs"))


@pytest.mark.property
def test_random_schedules(node: Node) -> None:
    """Whatever happens, a result that is said to be live is the server's at its position; `make fuzz` runs more."""
    runs = int(os.environ.get("FUZZ_EXAMPLES", "4000")) // 100
    node("--test", str(HERE / "fuzz.test.mjs"), env={"FUZZ_RUNS": str(runs)}, seconds=60 + 2 * runs)
