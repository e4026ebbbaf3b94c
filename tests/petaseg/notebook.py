"""Run docs/notebook.ipynb and write it again with its outputs: ``python -m tests.petaseg.notebook``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "notebook.ipynb"


def read() -> NotebookNode:
    """The page as it is stored."""
    return nbformat.read(PAGE, as_version=4)


def executed(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook, run in a folder by a kernel that imports this checkout; its first error is raised."""
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=500,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    done = client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    done.metadata.language_info = {"name": "python"}
    return done


def texts(notebook: NotebookNode) -> list[str]:
    """What each code cell prints and shows, without pictures."""
    return ["".join(map(_text, cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"]


def _text(output: NotebookNode) -> str:
    return str(output.text if output.output_type == "stream" else output.data["text/plain"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        nbformat.write(executed(read(), Path(name)), PAGE)
