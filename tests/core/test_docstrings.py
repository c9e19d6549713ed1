"""Every public function says what it takes and what it gives, with shapes and units."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["numpydoc_validation"]
OF_CLASSES = {"GL08", "SS01"}  # a class documents its attributes, a generated __init__ nothing


def _public_names() -> Iterator[tuple[str, str]]:
    """Names of `__all__` that a module defines itself, read without importing it."""
    for package in ("pipeline", "sims", "harness"):
        for path in sorted((ROOT / package).rglob("*.py")):
            relative = path.relative_to(ROOT).with_suffix("")
            module = ".".join(relative.parts).removesuffix(".__init__")
            tree = ast.parse(path.read_text(encoding="utf-8"))
            defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
            for node in tree.body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                    yield from ((module, n) for n in ast.literal_eval(node.value) if n in defined)


def _is_command(function: object) -> bool:
    """Whether each argument of a command is explained by its own help text."""
    if not inspect.isfunction(function) or not function.__module__.startswith("harness.cli."):
        return False
    if not inspect.signature(function).parameters:  # its result may be known to mypy alone
        return False
    hints = typing.get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    given = [getattr(hint, "__metadata__", ()) for hint in hints.values()]
    kinds = (typer.models.ArgumentInfo, typer.models.OptionInfo)
    return bool(given) and all(m and isinstance(m[0], kinds) and m[0].help for m in given)


def mistakes(module: str, name: str) -> list[str]:
    from numpydoc.validate import validate

    thing = getattr(import_module(module), name)
    checks = OF_CLASSES if inspect.isclass(thing) else set(SETTINGS["checks"])
    if _is_command(thing):
        checks -= {"PR01"}
    return [
        f"{module}.{name}: {code} {words}"
        for code, words in validate(f"{module}.{name}")["errors"]
        if code in checks
    ]


@pytest.mark.parametrize("package", ["pipeline", "sims", "harness"])
def test_docstrings_are_complete(package: str) -> None:
    names = [pair for pair in _public_names() if re.match(rf"{package}\b", pair[0])]
    assert len(names) > 50
    found = [fault for pair in names for fault in mistakes(*pair)]
    assert not found, "\n".join(found)


def undocumented(value: int) -> int:
    """Double a number."""
    return 2 * value


def misnamed(value: int) -> None:
    """Do nothing.

    Parameters
    ----------
    number : int
        Any.
    """
    assert value is not None


def test_the_check_notices_what_is_missing() -> None:
    codes = {line.split()[1] for line in mistakes(__name__, "undocumented")}
    assert codes == {"PR01", "RT01"}
    assert "PR02" in {line.split()[1] for line in mistakes(__name__, "misnamed")}
