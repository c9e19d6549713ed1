"""Sets of mask planes: each is a named one of `pipeline.masks`, and none disagrees with another."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from pipeline import masks
from pipeline.masks import MASK_PLANES, bits, flagged, ordered

ROOT = Path(__file__).parents[2]
SETS = {name: value for name, value in vars(masks).items() if isinstance(value, frozenset)}
MANY = 3


def _planes(node: ast.AST) -> list[str]:
    """Planes that an expression names one by one, in a list, a call, or joined by operators."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        parts = node.elts
    elif isinstance(node, ast.Call):
        parts = node.args
    elif isinstance(node, ast.BinOp):
        return _planes(node.left) + _planes(node.right)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [name for name in node.value.replace(",", " ").split() if name in MASK_PLANES]
    else:
        return []
    return [name for part in parts if isinstance(part, ast.Constant) for name in _planes(part)]


def _lists(source: str) -> list[tuple[int, list[str]]]:
    """Line and planes of every expression that names more than `MANY` planes."""
    nodes = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.expr))
    return [(n.lineno, names) for n in nodes if len(names := _planes(n)) > MANY]


@pytest.mark.parametrize(
    "source",
    [
        'UNUSABLE = bits("BAD", "SAT", "CR", "NO_DATA")',
        'for plane in ["BAD", "SAT", "CR", "NO_DATA"]: pass',
        'bad = {"BAD", "SAT"} | {"CR", "NO_DATA"}',
        'bad = bits("BAD", "SAT") | bits("CR") | bits("NO_DATA")',
        'e.has(*"BAD SAT CR NO_DATA".split())',
    ],
)
def test_a_list_of_planes_is_seen_in_every_disguise(source: str) -> None:
    assert _lists(source)
    assert not _lists(source.replace("NO_DATA", "NOT_A_PLANE"))


def test_no_other_module_lists_planes_of_its_own() -> None:
    paths = [
        p for room in ("pipeline", "harness", "sims", "bench") for p in ROOT.glob(f"{room}/**/*.py")
    ]
    assert len(paths) > 200
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {' '.join(names)}; use or add a set of pipeline.masks"
        for path in paths
        if path != ROOT / "pipeline" / "masks.py"
        for line, names in _lists(path.read_text(encoding="utf-8"))
    ]

    assert not wrong


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_exported_and_holds_planes(name: str) -> None:
    assert name in masks.__all__
    assert set(MASK_PLANES) >= SETS[name]
    assert set(ordered(SETS[name])) == SETS[name]


def test_equal_sets_are_one_set() -> None:
    assert len(set(SETS.values())) == len(SETS)


def test_what_says_nothing_of_the_sky_is_used_nowhere() -> None:
    sets = ("NO_BACKGROUND", "NOT_BLANK", "NO_PSF_STAR", "NOT_IN_SCORE", "NOT_AS_MEASURED")
    assert all(SETS[name] >= masks.NO_SKY for name in sets)
    assert {"STREAK"} == masks.NO_SKY - masks.NO_FLUX
    assert masks.BRIDGEABLE <= masks.NO_SKY
    assert masks.NO_PEAK <= masks.NOT_IN_SCORE


def test_flagged_marks_any_of_the_bits() -> None:
    rng = np.random.default_rng(4)
    mask = rng.integers(0, 1 << len(MASK_PLANES), (150, 7)).astype(np.uint32)
    wanted = bits("CR", "UNLISTED")

    assert np.array_equal(flagged(mask, wanted), (mask & wanted) != 0)
