"""Configuration models as commented TOML: help, unit, bounds and default beside each value."""

from __future__ import annotations

from collections.abc import Iterator

import tomlkit
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tomlkit.items import Item, Table

from pipeline.config import field_notes

__all__ = ["render"]

_Parent = tomlkit.TOMLDocument | Table
_HEAD = (
    "Configuration of this workspace.  Every value is here; the comments give unit, meaning,",
    "bounds and default.  Values marked [p] change products: after a change, `nightjar run`",
    "makes again what depends on them and nothing else.",
)


def render(settings: BaseModel) -> str:
    """Write a configuration as commented TOML.

    Parameters
    ----------
    settings : BaseModel
        A model whose fields are models, one section each.

    Returns
    -------
    str
        The text; `Settings.load` reads it back to an equal model.
    """
    document = tomlkit.document()
    for line in _HEAD:
        document.add(tomlkit.comment(line))
    for name, field in type(settings).model_fields.items():
        document.add(tomlkit.nl())
        _add_section(document, name, field, getattr(settings, name))
    return tomlkit.dumps(document)


def _add_section(parent: _Parent, name: str, field: FieldInfo, model: BaseModel) -> None:
    parent.add(tomlkit.comment(field.description or ""))
    table = tomlkit.table()
    nested: list[tuple[str, FieldInfo, BaseModel]] = []
    for key, inner in type(model).model_fields.items():
        value = getattr(model, key)
        if isinstance(value, BaseModel):
            nested.append((key, inner, value))
        else:
            _add_entry(table, key, inner, value)
    for key, inner, value in nested:
        table.add(tomlkit.nl())
        _add_section(table, key, inner, value)
    parent.add(name, table)
    table.trivia.indent = ""  # its comment stands right above it


def _add_entry(table: Table, key: str, field: FieldInfo, value: object) -> None:
    extra = field_notes(field)
    unit = f" [{extra['unit']}]" if extra.get("unit") else ""
    bounds = ", ".join(_bounds(field))
    notes = f"default {_toml(field.default)}" + (f", {bounds}" if bounds else "")
    mark = "" if extra.get("product") is False else "[p] "
    table.add(tomlkit.comment(f"{mark}{field.description}{unit} ({notes})"))
    if value is None:
        table.add(tomlkit.comment(f"{key} ="))
    else:
        table.add(key, _item(value))


def _bounds(field: FieldInfo) -> Iterator[str]:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    for limit in field.metadata:
        for name, sign in signs.items():
            bound = getattr(limit, name, None)
            if bound is not None:
                yield f"{sign} {bound}"


def _toml(value: object) -> str:
    return "none" if value is None else _item(value).as_string()


def _item(value: object) -> Item:
    """Make an item of one line, whatever it holds."""
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        for key, inner in value.items():
            inline.add(str(key), _item(inner))
        return inline
    if isinstance(value, list | tuple | set | frozenset):
        array = tomlkit.array()
        array.extend(_item(v) for v in value)
        return array
    item: Item = tomlkit.item(value)
    return item
