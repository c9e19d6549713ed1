"""The base of every stage's configuration.

A configuration is a frozen pydantic model that refuses unknown keys.  Every field is made
with `param`, so that its help text, its unit and whether it changes the product stand beside
its default; ``nightjar init`` writes the commented file and `config_hash` the provenance card
from the same declarations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from pipeline.masks import MASK_PLANES

__all__ = ["PlaneNames", "StageConfig", "config_hash", "field_notes", "param"]


def _known_planes(names: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := [name for name in names if name not in MASK_PLANES]:
        raise ValueError(f"unknown mask plane {wrong[0]}; known are {', '.join(MASK_PLANES)}")
    return names


PlaneNames = Annotated[tuple[str, ...], AfterValidator(_known_planes)]
"""Names of mask planes; an unknown one is an error of the configuration."""


class StageConfig(BaseModel):
    """Frozen, strict about its keys; the parent of every stage's ``Config``."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def param(
    default: Any,
    help: str,  # noqa: A002
    *,
    unit: str = "",
    product: bool = True,
    **limits: Any,
) -> Any:
    """Declare one configuration value.

    Parameters
    ----------
    default : object
        Its default.
    help : str
        One sentence for the user.
    unit : str
        Physical unit, empty for a pure number.
    product : bool
        Whether the value changes the pixels or rows that come out; only these enter the hash.
    **limits
        Bounds as pydantic knows them (``ge``, ``gt``, ``le``, ``lt`` ...).

    Returns
    -------
    pydantic.fields.FieldInfo
        The field.
    """
    extra: dict[str, Any] = {"unit": unit, "product": product}
    return Field(default, description=help, json_schema_extra=extra, **limits)


def field_notes(field: FieldInfo) -> Mapping[str, object]:
    """Return what `param` noted of a value beside its type and bounds.

    Parameters
    ----------
    field : pydantic.fields.FieldInfo
        A field of a configuration model.

    Returns
    -------
    mapping
        ``unit`` and ``product``; nothing for fields that were not made with `param`.
    """
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def _product_values(config: BaseModel) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, field in type(config).model_fields.items():
        if field_notes(field).get("product") is False:
            continue
        value = getattr(config, name)
        values[name] = _product_values(value) if isinstance(value, BaseModel) else value
    return values


def config_hash(config: BaseModel) -> str:
    """Return 12 hex digits that change when a value that affects the product changes.

    Parameters
    ----------
    config : pydantic.BaseModel
        Any configuration model.

    Returns
    -------
    str
        The first 12 hex digits of a SHA-256.
    """
    text = json.dumps(_product_values(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
