"""Build and check the documentation: ``python -m harness.cli.docs [--write]``.

The pages are Markdown that needs no tool to read, so building them means three things: the column
reference and the page about images equal what the code says (`--write` makes it so), every link to
a file of the repository leads somewhere, and every ``nightjar`` or ``make`` command that a page
shows exists, with the options it shows.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import schema
from pipeline.io import guide

if TYPE_CHECKING:
    from typer.core import TyperGroup

__all__ = ["faults", "main"]

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
_COMMAND = re.compile(r"^(?:    |\t)?(?:\$ )?((?:nightjar|make) [^#`\n]*)", re.MULTILINE)


def pages(root: Path = ROOT) -> list[Path]:
    """Markdown files of the repository, those of environments and campaigns left out."""
    folders = (root, root / "docs", *(root / "examples").glob("*"))
    return [page for folder in folders for page in sorted(folder.glob("*.md"))]


def faults(root: Path = ROOT) -> list[str]:
    """List what is wrong with the documentation, one sentence each.

    Parameters
    ----------
    root : Path
        Folder of the repository.

    Returns
    -------
    list of str
        Empty when nothing is wrong.
    """
    found = [
        f"{name} is out of step: python -m harness.cli.docs --write"
        for name, text in generated().items()
        if (root / name).exists() and (root / name).read_text(encoding="utf-8") != text
    ]
    targets = set(re.findall(r"^([a-z][\w-]*):", (root / "Makefile").read_text("utf-8"), re.M))
    for page in pages(root):
        text, name = page.read_text(encoding="utf-8"), page.relative_to(root)
        found += [f"{name}: no such file {link}" for link in _dead_links(page, text)]
        for line in _COMMAND.findall(text):
            wrong = _wrong(line.strip(), targets)
            found += [f"{name}: `{line.strip()}`: {wrong}"] if wrong else []
    return found


def generated() -> dict[str, str]:
    """Text of every file that follows from the code, by its name in the repository."""
    from harness.verify.loader import SCHEMAS, json_schema

    schemas = {f"testcases/{n}.schema.json": json_schema(n) for n in SCHEMAS}
    return {
        "docs/columns.md": schema.document(),
        "docs/your-images.md": guide.document(),
        **{n: json.dumps(s, indent=1, sort_keys=True) + "\n" for n, s in schemas.items()},
    }


def _dead_links(page: Path, text: str) -> Iterator[str]:
    for link in _LINK.findall(text):
        if "://" not in link and not (page.parent / link).exists():
            yield link


def _wrong(line: str, targets: set[str]) -> str:
    """Say what does not exist in a command line, empty if all does."""
    words = shlex.split(line)
    if words[0] == "make":
        unknown = [w for w in words[1:2] if re.fullmatch(r"[a-z-]+", w) and w not in targets]
        return f"no target {unknown[0]}" if unknown else ""
    command: Any = _commands()
    for word in words[1:]:
        inner = getattr(command, "commands", None)
        if inner is None or word.startswith("-"):
            break
        if word not in inner:
            return f"no command {word}"
        command = inner[word]
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
    unknown = [w for w in words if re.match(r"--?[a-z]", w) and w.split("=")[0] not in known]
    return f"no option {unknown[0]}" if unknown else ""


def _commands() -> TyperGroup:
    from harness.cli.main import build_app

    return build_app()


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the documentation, after writing the generated page if asked to.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line; those of the process by default.

    Returns
    -------
    int
        0 when nothing is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m harness.cli.docs")
    parser.add_argument("--write", action="store_true", help="write the generated pages")
    if parser.parse_args(arguments).write:
        for name, text in generated().items():
            (ROOT / name).write_text(text, encoding="utf-8")
    found = faults()
    sys.stderr.write("".join(f"{line}\n" for line in found))
    sys.stdout.write(f"{len(pages())} pages, {len(found)} faults\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
