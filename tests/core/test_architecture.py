"""The structure, enforced: who may import whom, and how long modules and functions may be."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ["isr", "calibrate", "template", "subtract", "diasource", "diaobject", "alerts"]
SIMS_MAY = {
    "pipeline.camera": "raw frames follow the camera's definition",
    "pipeline.compiled": "one way to compile pixel loops",
    "pipeline.errors": "errors that a user sees are one line, whoever raises them",
    "pipeline.exposure": "types of arrays, the zero point of nJy and the interface of a PSF",
    "pipeline.htm": "trixels by which published catalogues are cut",
    "pipeline.io": "files are written the same way, and synthetic sources are added to raw frames",
    "pipeline.masks": "planes of the truth have the bits of those they are compared with",
    "pipeline.schema": "columns of the truth are declared like those of the products",
    "pipeline.sphere": "unit vectors of sky positions; a second definition would only add a risk",
    "pipeline.statistics": "constants of the Gaussian: MAD and FWHM over the standard deviation",
    "pipeline.timescales": "mid-exposure TAI of a raw header, which both sides must read alike",
    "pipeline.wcs": "pixel scale of a WCS",
}
"""What `sims` may share with the code that its frames test, each with the reason."""

LONG = {
    ("pipeline/diasource/models.py", "fit"): "Levenberg-Marquardt with its arrays in one place",
    ("pipeline/diasource/features.py", "stamp_features"): "one pass over a stamp for all features",
    ("pipeline/psfphot.py", "_forced"): "one pass over the pixels of a source for all its sums",
}
"""Compiled loops of more than 60 lines: a part split off costs a compilation of its own."""

FILES = {
    ("pipeline/atomic.py", "mkdir"): "the one place where files are put under their names",
    ("pipeline/atomic.py", "replace"): "the same",
    ("pipeline/atomic.py", "exists"): "the same",
    ("pipeline/atomic.py", "unlink"): "the same",
    ("pipeline/alerts/container.py", "pipeline.atomic.atomic_path"): "an alert file is a product",
    ("pipeline/alerts/container.py", "open"): "reads and writes alert files",
    ("pipeline/alerts/blocks.py", "open"): "checks alert files of any origin block by block",
    ("pipeline/alerts/cutouts.py", "writeto"): "FITS cut-out into a buffer in memory",
    ("pipeline/diasource/reliability.py", "importlib.resources.files"): "trained classifier,"
    " package data",
    ("pipeline/diasource/reliability.py", "importlib.resources.as_file"): "the same",
    ("pipeline/diasource/reliability.py", "numpy.load"): "the same",
    ("pipeline/diasource/reliability.py", "open"): "a trained classifier is written as it is read",
    ("pipeline/diasource/reliability.py", "numpy.savez_compressed"): "the same",
}
"""Where `pipeline` touches files outside of `io` and `camera`: module, call, reason."""

_OPENING = {
    "numpy": "load save savez savez_compressed loadtxt savetxt genfromtxt fromfile memmap",
    "astropy.io.fits": "open getdata getheader getval setval writeto append update info",
    "astropy.io.ascii": "read write",
    "astropy.table.Table": "read",
    "pyarrow.parquet": "read_table write_table read_schema read_metadata ParquetFile ParquetWriter",
    "pyarrow.csv": "read_csv write_csv open_csv",
    "pyarrow": "OSFile memory_map",
    "importlib.resources": "files as_file open_binary open_text read_binary read_text path",
    "os": "open remove replace rename unlink mkdir makedirs listdir scandir stat walk link symlink",
    "os.path": "exists isfile isdir getsize",
    "io": "open FileIO",
    "pipeline.atomic": "atomic_path",
    "builtins": "open",
}
_OPENING_CALLS = {f"{m}.{f}" for m, names in _OPENING.items() for f in names.split()}
_OPENING_MODULES = (
    "shutil", "tempfile", "zipfile", "tarfile", "sqlite3", "h5py", "mmap", "glob", "fileinput",
    "pickle", "pipeline.io", "urllib", "socket", "subprocess",
)  # fmt: skip
_METHODS = {
    "open", "read_text", "write_text", "read_bytes", "write_bytes", "writeto", "tofile", "unlink",
    "mkdir", "rmdir", "touch", "exists", "is_file", "is_dir", "iterdir", "glob", "rglob", "rename",
    "symlink_to", "hardlink_to", "read_parquet", "write_parquet", "read_csv", "write_csv",
}  # fmt: skip
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
def test_pipeline_imports_nothing_that_uses_it(path: Path) -> None:
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


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_entered_in_run(stage: str) -> None:
    """Its `run` is that of the module `run`, by whichever way one comes to it."""
    package = importlib.import_module(f"pipeline.{stage}")
    module = importlib.import_module(f"pipeline.{stage}.run")

    assert package.run is module.run


def test_sims_import_only_what_is_listed() -> None:
    used = {
        (p.name, i)
        for p in _sources("sims")
        for i in _imports(p)
        if _within(i, "harness") or _within(i, "pipeline")
    }

    assert not [(p, i) for p, i in used if not any(_within(i, m) for m in SIMS_MAY)]
    assert not [m for m in SIMS_MAY if not any(_within(i, m) for _, i in used)]


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
    allowed = [ROOT / "pipeline" / "io", ROOT / "pipeline" / "camera"]
    found = {
        (str(p.relative_to(ROOT)), call)
        for p in _sources("pipeline")
        if not any(a in p.parents for a in allowed)
        for call in _file_access(p.read_text())
    }

    assert found - FILES.keys() == set()
    assert FILES.keys() - found == set()


def _file_access(source: str) -> Iterator[str]:
    """Calls that open or look for files, by full name where the import tells it."""
    tree = ast.parse(source)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    yield from (n for n in names.values() if any(_within(n, m) for m in _OPENING_MODULES))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (call := _opens(node, names)):
            yield call


def _opens(call: ast.Call, names: dict[str, str]) -> str:
    function = call.func
    full = _full_name(function, names)
    if full in _OPENING_CALLS:
        return full
    if not isinstance(function, ast.Attribute):
        return ""
    # A file is renamed by one positional argument; text takes two, dataclasses take keywords.
    renamed = function.attr == "replace" and len(call.args) == 1 and not call.keywords
    known = full.partition(".")[0] in {n.partition(".")[0] for n in names.values()}
    certain = function.attr == "open" or ((function.attr in _METHODS or renamed) and not known)
    return function.attr if certain else ""


def _full_name(node: ast.expr, names: dict[str, str]) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    first = names.get(node.id, "builtins.open" if node.id == "open" else f"?{node.id}")
    return ".".join([first, *reversed(parts)])


@pytest.mark.parametrize(
    "source",
    [
        "open('a')",
        "path.open('rb')",
        "Path('a').read_text()",
        "(folder / 'a').write_bytes(b'')",
        "import numpy as np\nnp.load('a')",
        "import numpy\nnumpy.savez('a', x=1)",
        "from numpy import fromfile as f\nf('a')",
        "from astropy.io import fits\nwith fits.open('a') as hdus: pass",
        "from astropy.io.fits import getdata\ngetdata('a')",
        "import astropy.io.fits\nastropy.io.fits.writeto('a', x)",
        "import pyarrow.parquet as pq\npq.read_table('a')",
        "from importlib import resources\nresources.files('pipeline')",
        "from importlib.resources import files\nfiles('pipeline')",
        "def f():\n    from pipeline.io import read_parquet",
        "import shutil",
        "import gzip\ngzip.open('a')",
        "image.tofile('a')",
        "partial.replace(path)",
        "from pathlib import Path\nPath('a').exists()",
    ],
)
def test_file_access_is_found(source: str) -> None:
    assert list(_file_access(source))


@pytest.mark.parametrize(
    "source",
    [
        "text.replace('a', 'b')",
        "exposure.replace(image=image)",
        "from dataclasses import replace\nreplace(fit, kernel=kernel)",
        "import numpy as np\nnp.loads",
        "from pathlib import Path\nname = Path('a').name",
        "Camera.load('generic')",
    ],
)
def test_other_calls_are_not(source: str) -> None:
    assert not list(_file_access(source))


@pytest.mark.parametrize("path", _sources("pipeline", "sims", "harness"), ids=str)
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600


def test_functions_stay_small() -> None:
    functions = [
        ((str(path.relative_to(ROOT)), f.name), _lines(f), _is_compiled(f))
        for path in _sources("pipeline", "sims", "harness")
        for f in ast.walk(ast.parse(path.read_text()))
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    sizes = sorted(lines for _, lines, _ in functions)
    long = [(where, compiled) for where, lines, compiled in functions if lines > 60]

    assert sizes[len(sizes) // 2] <= 8
    assert sizes[len(sizes) * 9 // 10] <= 30
    assert sorted(long) == sorted((where, True) for where in LONG)


def _is_compiled(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "compiled" for d in function.decorator_list)


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines with the signature and without the docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    docstring = function.body[0]
    return lines - ((docstring.end_lineno or 0) - docstring.lineno + 1)


def test_no_six_lines_stand_twice() -> None:
    """Counts statements of functions; declarations, signatures and docstrings may be alike."""
    places: dict[tuple[str, ...], list[str]] = {}
    for path in _sources("pipeline", "sims", "harness"):
        lines = _statement_lines(path.read_text())
        for k in range(len(lines) - 5):
            if lines[k + 5][0] - lines[k][0] <= 12:
                key = tuple(text for _, text in lines[k : k + 6])
                places.setdefault(key, []).append(f"{path.relative_to(ROOT)}:{lines[k][0]}")

    assert not [where for where in places.values() if len(where) > 1]


def _statement_lines(source: str) -> list[tuple[int, str]]:
    """Lines with a word in them that belong to statements of functions, with their numbers."""
    text, numbers = source.splitlines(), set()
    for f in ast.walk(ast.parse(source)):
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef):
            body = f.body[1:] if ast.get_docstring(f) is not None else f.body
            numbers.update(n for s in body for n in range(s.lineno, (s.end_lineno or 0) + 1))
    lines = [(n, text[n - 1].strip()) for n in sorted(numbers)]
    return [(n, line) for n, line in lines if len(line) > 3 and not line.startswith("#")]


@pytest.mark.parametrize("package", ["pipeline", "harness", "sims"])
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
