"""The attribute lists of requirements: which columns deliver what a requirement names."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.verify.documents import read_model

__all__ = ["Attribute", "Matrix", "Need", "load_matrices"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Need(_Model):
    """One column that an attribute needs.

    Attributes
    ----------
    name, table : str
        Column, and its table where it is not that of the matrix.
    unit : str, optional
        Declared unit; None when there is nothing to demand.
    populated : float
        Least fraction of rows that must hold a value.
    where : str
        Rows to which it applies; all when empty.
    constant : str
        Why one value for all rows is right; empty when it is not.
    may_be_empty : str
        Why there may be no row to which it applies.
    """

    name: str
    table: str = ""
    unit: str | None = None
    populated: float = Field(1.0, ge=0.0, le=1.0)
    where: str = ""
    constant: str = ""
    may_be_empty: str = ""


class Attribute(_Model):
    """One attribute that a requirement names."""

    id: str
    text: str
    dmtr53: Literal["PASS", "FAIL", "N/A", "-"] = "-"
    columns: list[Need]


class Matrix(_Model):
    """All attributes of a requirement on one table."""

    id: str
    table: str
    where: str = ""
    attributes: list[Attribute]


class _File(_Model):
    version: Literal[1] = Field(alias="schema")
    matrices: list[Matrix]


def load_matrices(folder: Path) -> dict[str, Matrix]:
    """Read ``attributes.yaml``.

    Parameters
    ----------
    folder : path-like
        The folder of the test cases.

    Returns
    -------
    dict of Matrix
        By name.

    Raises
    ------
    SpecError
        With every problem of the file.
    """
    path = folder / "attributes.yaml"
    return dict(_known(path, path.read_bytes() if path.is_file() else b""))


@lru_cache(maxsize=2)
def _known(path: Path, _content: bytes) -> dict[str, Matrix]:
    """Read a file once per content: several checks ask for it, and reading takes half a second."""
    return {m.id: m for m in read_model(path, _File).matrices}
