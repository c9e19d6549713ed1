"""How many rows of a target the tables of the catalogue have."""

from __future__ import annotations

from collections.abc import Sequence

from harness.catalog import Catalog
from harness.ledger import Target
from pipeline.schema import TABLES

__all__ = ["RowCounts"]


class RowCounts:
    """Counts of the rows of every target, taken of a table when it is first asked for.

    Parameters
    ----------
    catalog : Catalog
        Where the rows are.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._counts: dict[tuple[object, ...], dict[tuple[object, ...], int]] = {}

    def of(self, table: str, target: Target, stages: Sequence[str]) -> int:
        """Count the rows of a target; in a table that tells stages apart, of these.

        Parameters
        ----------
        table : str
            Name of a declared table.
        target : Target
            Visit and detector, or template.
        stages : sequence of str
            Names of stages.

        Returns
        -------
        int
            0 where there are none.
        """
        columns = tuple(target.where)
        names = tuple(stages) if "stage" in TABLES[table] else ()
        if (table, columns, names) not in self._counts:
            self._counts[table, columns, names] = self._counted(table, columns, names)
        return self._counts[table, columns, names].get(tuple(target.where.values()), 0)

    def _counted(
        self, table: str, columns: Sequence[str], stages: Sequence[str]
    ) -> dict[tuple[object, ...], int]:
        keys = ", ".join(f'"{name}"' for name in columns)
        condition = f"stage IN ({', '.join('?' * len(stages))})" if stages else "true"
        sql = f'SELECT {keys}, count(*) FROM "{table}" WHERE {condition} GROUP BY ALL'
        return {tuple(row[:-1]): row[-1] for row in self._catalog.fetch(sql, list(stages))}
