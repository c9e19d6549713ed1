"""The reference of columns is complete and in step with the declarations."""

from __future__ import annotations

from pathlib import Path

from pipeline import schema

PAGE = Path(__file__).parents[2] / "docs" / "columns.md"


def test_the_page_is_in_step() -> None:
    assert PAGE.read_text(encoding="utf-8") == schema.document(), (
        'write it anew: python -c "from pathlib import Path; from pipeline.schema import document;'
        " Path('docs/columns.md').write_text(document())\""
    )


def test_every_column_is_on_the_page() -> None:
    page = schema.document()
    for table in schema.TABLES.values():
        section = page.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        for column in table.columns:
            name = column.name
            if f"`{name}`" not in section:
                assert name[:2] in {f"{b}_" for b in schema.BANDS}, name
                folded = name.replace(f"{name[0]}_", "{b}_")
                assert f"`{folded}`" in section, name


def test_bands_are_folded_in_names_and_meanings() -> None:
    row = next(r for r in schema.document().splitlines() if "`{b}_psfFluxMean`" in r)
    assert "psfFlux in {b}" in row
    assert "| float32 | nJy |" in row
    assert "`u_" not in schema.document()
    assert "`{b}_H_{b}_G12_Cov`" in schema.document()
