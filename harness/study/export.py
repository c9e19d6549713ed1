"""The table of efficiencies as ECSV, with units and meanings."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa

__all__ = ["as_ecsv"]

_MEANING = {
    "band": "band of the visits",
    "snrLow": "lower edge of the bin of true signal to noise, inclusive",
    "snrHigh": "upper edge, exclusive",
    "snr": "median true signal to noise",
    "mag": "median true AB magnitude on the difference",
    "n": "point sources injected outside masks",
    "detected": "fraction detected",
    "detectedLow": "lower end of its 95 % interval (Jeffreys)",
    "detectedHigh": "upper end of its 95 % interval (Jeffreys)",
    "alerted": "fraction that passes the cuts of an alert",
    "alertedLow": "lower end of its 95 % interval (Jeffreys)",
    "alertedHigh": "upper end of its 95 % interval (Jeffreys)",
    "ideal": "fraction that the noise alone would let be detected",
}


def as_ecsv(table: pa.Table) -> str:
    """Write the table of `harness.study.summary.efficiency_table` as ECSV.

    Parameters
    ----------
    table : pyarrow.Table
        The table; NULL becomes NaN.

    Returns
    -------
    str
        The file, with unit and meaning of every column in its header.
    """
    from astropy.table import Column, Table

    columns = []
    for name in table.column_names:
        values = table[name].to_pylist()
        if name != "band":
            values = np.array([np.nan if v is None else v for v in values])
        unit = "mag" if name == "mag" else None
        columns.append(Column(values, name=name, unit=unit, description=_MEANING[name]))
    buffer = io.StringIO()
    Table(columns).write(buffer, format="ascii.ecsv")
    return buffer.getvalue()
