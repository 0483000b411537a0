"""Run the notebook's cells anew, keep what they show, and draw the table for README.md.

``python tests/docs/notebook_picture.py`` needs the package that carries MiniLM, and a Chromium.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples/notebook.ipynb"
PICTURE = ROOT / "tests/benchmarks/charts/notebook.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 820, 248

PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ font: 14px system-ui, "DejaVu Sans", sans-serif; margin: 16px; background: #fff }}
pre {{ font: 13px "DejaVu Sans Mono", monospace; background: #f5f5f5; border: 1px solid #e0e0e0;
  padding: 8px 10px; margin: 0 0 10px }}
td {{ font-size: 13px }} tbody tr:nth-child(odd) {{ background: #f5f5f5 }}
</style><pre>{source}</pre>{table}"""


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line, which a notebook shows."""
    parts = ast.parse(source)
    last = parts.body[-1]
    if not isinstance(last, ast.Expr):
        exec(source, names)
        return None
    exec(compile(ast.Module(parts.body[:-1], []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def run_all(notebook: dict[str, Any]) -> None:
    """Run all cells, and put what they show in place of what they showed."""
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = run_cell("".join(cell["source"]), names)
        (output,) = cell["outputs"]
        if output["output_type"] == "stream":
            output["text"] = printed.getvalue().splitlines(keepends=True)
        else:
            output["data"] = {
                "text/html": [value._repr_html_()],
                "text/plain": str(value).splitlines(keepends=True),
            }


def draw(cell: dict[str, Any], browser: str) -> None:
    """Draw a cell and its table as a notebook shows them."""
    (table,) = cell["outputs"][0]["data"]["text/html"]
    page = PAGE.format(source=escape("".join(cell["source"])), table=table)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "page.html").write_text(page, "utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        subprocess.run(
            [
                browser,
                *options,
                f"--user-data-dir={folder}/profile",
                f"--window-size={WIDTH},{HEIGHT}",
                f"--screenshot={PICTURE}",
                f"file://{folder}/page.html",
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


def main() -> int:
    os.environ["COLUMNS"] = "80"
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    run_all(notebook)
    written = json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"
    NOTEBOOK.write_text(written, "utf-8")
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        print("there is no Chromium: the picture stays as it is")
        return 1
    (shown,) = (cell for cell in notebook["cells"] if "text/html" in json.dumps(cell))
    draw(shown, browser)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
