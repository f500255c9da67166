"""Draw `oms demo`'s output as a picture for the README: ``oms demo | python scripts/draw_demo.py docs/demo.svg``."""

from __future__ import annotations

import re
import sys
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WORDS = {
    r"\bdone\b": "green",
    r"\bstarted\b": "cyan",
    r"\breleased\b|\brerouted\b": "yellow",
    r"\bqueued\b": "bright_black",
    r"^JOB-\d+.*$": "bold",
    r"^The ledger and OMS agree.*$": "bold green",
}


def main() -> None:
    """Read the output from standard input, write the picture to the file named."""
    target = Path(sys.argv[1])
    console = Console(record=True, width=112, file=StringIO())
    text = Text("$ scripts/demo\n" + sys.stdin.read())
    for words, style in WORDS.items():
        text.highlight_regex(re.compile(words, re.MULTILINE), style)
    console.print(text)
    # The picture uses the reader's own fonts: it must not fetch any.
    drawing = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    drawing = drawing.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")
    target.write_text(console.export_svg(title="oms demo", code_format=drawing))


if __name__ == "__main__":
    main()
