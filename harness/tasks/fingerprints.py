"""Hashes of what units read from the catalogue, remembered until a row of it changes.

The key of a unit contains the hash of all rows that it reads, and to collect the rows of thousands
of finished units takes minutes.  A fingerprint of whole tables takes seconds: as long as it is the
same, so is what was collected before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.campaign.context import Context
from harness.catalog import Catalog
from harness.plan import Unit
from harness.system.hashes import combine

__all__ = ["KnownRows", "fingerprint"]


def fingerprint(catalog: Catalog, tables: Mapping[str, Sequence[str]]) -> str:
    """Hash of the rows of tables, in any order; every row counts as often as it is there.

    Parameters
    ----------
    catalog : Catalog
        The catalogue.
    tables : mapping of str to sequence of str
        Columns that count, by table; all of them if none is named.

    Returns
    -------
    str
        16 hex digits; those of another version of DuckDB are others.
    """
    parts = []
    for name, columns in sorted(tables.items()):
        row = ", ".join(f't."{column}"' for column in columns) or "t"
        (found,) = catalog.fetch(
            f'SELECT count(*), sum(hash({row})), bit_xor(hash({row})) FROM "{name}" t'
        )
        parts.append(" ".join(map(str, (name, *columns, *found))))
    return combine(parts)


class KnownRows:
    """What the rows of units hash to, kept between invocations with the hashes of files.

    Parameters
    ----------
    context : Context
        The campaign.
    task : str
        For which task they are hashed.
    tables : mapping of str to sequence of str
        What is read of the catalogue, see `fingerprint`.
    sections : sequence of str
        Sections of the configuration that say which rows are read.
    """

    def __init__(
        self,
        context: Context,
        task: str,
        tables: Mapping[str, Sequence[str]],
        sections: Sequence[str],
    ) -> None:
        self._context, self._task = context, task
        configs = [context.settings.section_hash(section) for section in sections]
        rows = fingerprint(context.state.catalog, tables)
        # Another version of the software may read other rows.
        self._stamp = combine([context.cards["SOFTVER"], *configs, rows])

    def of(self, unit: Unit) -> str | None:
        """Return the hash that is known of a unit, None if anything has changed since."""
        return self._context.state.hashes.kept(self._name(unit), self._stamp_of(unit))

    def keep(self, unit: Unit, value: str) -> None:
        """Remember the hash of a unit."""
        self._context.state.hashes.keep(self._name(unit), self._stamp_of(unit), value)

    def _name(self, unit: Unit) -> str:
        return f"{self._task} {unit[0]} {unit[1]}"

    def _stamp_of(self, unit: Unit) -> str:
        return f"{self._stamp} {self._context.frames[unit].mjd!r}"
