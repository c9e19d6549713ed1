"""The floor plan, enforced: who may import whom, and how large a room may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ["isr", "calibrate", "template", "subtract", "diasource", "diaobject", "alerts"]
SIMS_MAY = {
    "pipeline." + m
    for m in (
        "camera",
        "exposure",
        "masks",
        "schema",
        "io",
        "errors",
        "timescales",
        "ids",
        "config",
        "compiled",
        # mathematics that one definition must serve on both sides
        "sphere",
        "statistics",
        "wcs",
    )
}
FORBIDDEN_IN_PIPELINE = ("harness", "sims", "testcases", "duckdb", "typer", "rich")


def _sources(*packages: str) -> list[Path]:
    return sorted(p for name in packages for p in (ROOT / name).rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", _sources("pipeline"), ids=str)
def test_pipeline_knows_nothing_of_the_house_around_it(path: Path) -> None:
    wrong = [i for i in _imports(path) if any(_within(i, f) for f in FORBIDDEN_IN_PIPELINE)]

    assert not wrong


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_one_another(stage: str) -> None:
    others = [f"pipeline.{s}" for s in STAGES if s != stage]
    wrong = [
        (p.name, i)
        for p in _sources(f"pipeline/{stage}")
        for i in _imports(p)
        if any(_within(i, o) for o in others)
    ]

    assert not wrong


def test_sims_import_only_the_nouns() -> None:
    wrong = [
        (p.name, i)
        for p in _sources("sims")
        for i in _imports(p)
        if _within(i, "harness")
        or (_within(i, "pipeline") and not any(_within(i, m) for m in SIMS_MAY))
    ]

    assert not wrong


def test_nothing_imports_the_command_line() -> None:
    wrong = [
        (p.name, i)
        for p in _sources("pipeline", "sims", "harness")
        if "cli" not in p.parts
        for i in _imports(p)
        if _within(i, "harness.cli")
    ]

    assert not wrong


def test_only_io_touches_files() -> None:
    allowed = {ROOT / "pipeline" / "io", ROOT / "pipeline" / "camera"}
    wrong = [
        (str(p.relative_to(ROOT)), i)
        for p in _sources(*[f"pipeline/{s}" for s in STAGES])
        if not any(a in p.parents for a in allowed)
        for i in _imports(p)
        if _within(i, "astropy.io.fits.open")
    ]

    assert not wrong


@pytest.mark.parametrize("path", _sources("pipeline", "sims", "harness"), ids=str)
def test_rooms_stay_small(path: Path) -> None:
    tree = ast.parse(path.read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if _body_lines(f) > (80 if _is_compiled(f) else 60)]

    assert len(path.read_text().splitlines()) <= 600
    assert not long


def _is_compiled(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A pixel loop may be longer: what is split off costs a compilation of its own."""
    return any(isinstance(d, ast.Name) and d.id == "compiled" for d in function.decorator_list)


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("package", ["harness", "sims"])
def test_imports_make_no_circle(package: str) -> None:
    """Counts imports inside functions and for type checkers, and registries found by walking."""
    modules = {_module(p): p for p in _sources(package)}
    graph = {name: _needs(name, path, set(modules)) for name, path in modules.items()}

    assert not _circles(graph)


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _needs(name: str, path: Path, modules: set[str]) -> set[str]:
    """Modules that one imports; the packages that enclose it are not counted."""
    names = {i if i in modules else i.rpartition(".")[0] for i in _imports(path)}
    if "iter_modules(__path__)" in path.read_text():
        names |= {m for m in modules if m.rpartition(".")[0] == name}
    return {n for n in names & modules if not _within(name, n)}


def _circles(graph: dict[str, set[str]]) -> list[str]:
    """What is left after everything that needs nothing else is taken away, again and again."""
    rest = {name: set(needs) for name, needs in graph.items()}
    while free := {n for n, needs in rest.items() if not needs & rest.keys()}:
        rest = {n: needs for n, needs in rest.items() if n not in free}
    return sorted(rest)


def test_a_circle_is_found() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
