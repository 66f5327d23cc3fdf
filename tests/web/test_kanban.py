"""The board that shows a customer how to use the client."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.api.servers import environment
from tests.web.conftest import ROOT, Node

EXAMPLES = ROOT / "examples"
PAGE = (EXAMPLES / "kanban.html").read_text("utf-8")


def test_it_is_short() -> None:
    """One file of under 120 lines, which writes no text as markup."""
    assert PAGE.count("\n") < 120
    assert re.findall(r"\.(?:innerHTML|outerHTML|insertAdjacentHTML)\b", PAGE) == []


def test_its_script(node: Node, tmp_path: Path) -> None:
    """It is a module without faults of syntax."""
    [script] = re.findall(r'<script type="module">(.*?)</script>', PAGE, re.DOTALL)
    (tmp_path / "kanban.mjs").write_text(script)
    node("--check", str(tmp_path / "kanban.mjs"))


def test_its_class(tmp_path: Path) -> None:
    """The module that its first lines name serves what it asks for, with the columns that it shows."""
    assert "HEADWATER_DOCUMENTS=documents.models,board" in PAGE
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(ROOT / "main.py"), "openapi"],
        cwd=tmp_path,
        env=environment({"HEADWATER_DOCUMENTS": "documents.models,board"}, EXAMPLES),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    document = json.loads(done.stdout)
    assert {"get", "post"} <= set(document["paths"]["/api/v1/cards"])
    assert "patch" in document["paths"]["/api/v1/cards/{id}"]
    [columns] = re.findall(r"const COLUMNS = \{(.*?)\};", PAGE)
    states = document["components"]["schemas"]["CardCreate"]["properties"]["status"]["enum"]
    assert re.findall(r"(\w+):", columns) == states
