"""The page on simulated frames in the report."""

from __future__ import annotations

from pathlib import Path

from harness.drawing.plots import draw_plot
from harness.report.simulation import keep_statistics, simulation_page
from harness.workspace import Workspace


def row(name: str, error: float, bound: float, holds: bool) -> dict[str, object]:
    return {
        "name": name, "subject": f"{name} {error}", "measured": error, "expected": 0.0,
        "bound": bound, "unit": "mas", "population": 5, "relative": False,
        "error": error, "holds": holds,
    }  # fmt: skip


def test_each_statistic_stands_with_the_row_closest_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "nightjar.toml").write_text("")
    space = Workspace.open(tmp_path)
    assert simulation_page(space) == ()
    rows = [row("a", 1.0, 2.0, True), row("a", 3.0, 2.0, False), row("b", 1.0, 2.0, True)]
    curve = {"name": "c", "x_label": "x", "y_label": "y", "x": [1.0, 2.0],
             "measured": [1.0, 2.1], "expected": [1.0, 2.0]}  # fmt: skip
    keep_statistics(space, {"rows": rows, "curves": [curve]})
    table, figure = simulation_page(space)
    first, second = (dict(zip(table.data["columns"], r, strict=True)) for r in table.data["rows"])
    assert (first["closest to its bound"], first["holds"], first["population"]) == (
        "a 3.0",
        "NO",
        10,
    )
    assert (second["statistic"], second["holds"], second["compared"]) == ("b", "yes", 1)
    (axes,) = draw_plot(figure.data).axes
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["measured", "expected"]
