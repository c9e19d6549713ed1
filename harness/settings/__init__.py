"""The configuration of a campaign: ``nightjar.toml``, written from the models and read back.

Every value is declared once, as a field of a stage's ``Config`` or of the models below.  The
file is generated from these declarations by `harness.settings.toml`; what is read back is checked
against them, and an unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from harness.execute.config import Config as Execution
from harness.settings.file import at, read
from harness.system.dates import periods
from harness.workspace import atomic
from pipeline.alerts import Config as Alerts
from pipeline.calibrate import Config as Calibrate
from pipeline.config import StageConfig, config_hash, field_notes, param
from pipeline.diaobject import Config as DiaObject
from pipeline.diasource import Config as DiaSource
from pipeline.errors import ConfigError
from pipeline.isr import Config as Isr
from pipeline.subtract import Config as Subtract
from pipeline.template import Config as Template

__all__ = [
    "Campaign",
    "Report",
    "Settings",
    "changed_values",
    "product_values",
    "values_of",
]

_LONGEST_NAME = 200


def _file_name(text: str) -> str:
    """Refuse a name that would lead elsewhere as part of a path."""
    if not text.strip() or text.startswith(".") or "/" in text or not text.isprintable():
        raise ValueError("must be fit for a file name: no /, no control character, no . in front")
    if len(text.encode()) > _LONGEST_NAME:
        raise ValueError(f"must have at most {_LONGEST_NAME} bytes")
    return text


def _periods(text: str) -> str:
    """Refuse what are no periods of time."""
    try:
        periods(text)
    except ConfigError as err:
        raise ValueError(str(err)) from None
    return text


class Campaign(StageConfig):
    """What is processed, and by which rules templates are chosen."""

    name: Annotated[str, AfterValidator(_file_name)] = param(
        "campaign", "name of the campaign, used in reports and run ids"
    )
    profile: str = param("", "simulation profile; empty for ingested frames", product=False)
    camera: str = param("decam", "camera definition: bundled name or calib/camera/<name>.toml")
    keywords: str = param(
        "", "header cards of plain FITS images by item, such as 'gain=EGAIN exptime=ITIME'"
    )
    mask_bits: str = param(
        "", "bits of the masks of plain FITS images that count: a survey's name, or 0,8=SAT"
    )
    seed: int = param(42, "seed of the simulation", product=False, ge=0)
    template_inputs: int = param(
        3, "template inputs wanted where the exposures have no roles yet", ge=1
    )
    template_inputs_max: int = param(8, "most inputs of one template", ge=1)
    template_without: Annotated[str, AfterValidator(_periods)] = param(
        "", "periods kept out of templates, such as '2015-02-17/2015-03-01' (UTC dates or MJD)"
    )
    overlap: float = param(
        0.2, "least shared fraction of the smaller frame for two frames to be one field", gt=0, le=1
    )


class Report(StageConfig):
    """People and words that the test report prints; nothing here changes a product."""

    title: str = param("Alert Generation", "title of the report", product=False)
    tester: str = param("", "who executed the campaign", product=False)
    inspector: str = param("", "who answered the visual inspections", product=False)
    approver: str = param("", "who approved the report", product=False)
    assessment: str = param("", "overall assessment in words", product=False)
    recommendations: str = param("", "recommended improvements in words", product=False)


class Settings(StageConfig):
    """All of ``nightjar.toml``; one section per field."""

    campaign: Campaign = param(Campaign(), "the campaign")
    execution: Execution = param(Execution(), "processes")
    report: Report = param(Report(), "people and words of the report")
    isr: Isr = param(Isr(), "instrument signature removal")
    calibrate: Calibrate = param(Calibrate(), "background, PSF, WCS, zero point")
    template: Template = param(Template(), "template coadds")
    subtract: Subtract = param(Subtract(), "PSF matching and subtraction")
    diasource: DiaSource = param(DiaSource(), "detection and measurement")
    diaobject: DiaObject = param(DiaObject(), "association and features")
    alerts: Alerts = param(Alerts(), "alert packets")

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Settings:
        """Read and check a configuration file.

        Parameters
        ----------
        path : Path
            The file.
        overrides : sequence of str
            ``section.key=value`` with the value in TOML, as on the command line.

        Raises
        ------
        ConfigError
            For a missing file, broken TOML, an unknown key or a value out of bounds.
        """
        values, text = read(path)
        return cls._checked(values, overrides, path, text)

    @classmethod
    def defaults(cls, overrides: Sequence[str] = ()) -> Settings:
        """Take the defaults, some of them changed as in `load`; without a file."""
        return cls._checked({}, overrides, None)

    @classmethod
    def _checked(
        cls, values: dict[str, Any], overrides: Sequence[str], path: Path | None, text: str = ""
    ) -> Settings:
        for override in overrides:
            _override(values, override)
        try:
            return cls.model_validate(values)
        except ValidationError as err:
            where = [str(k) for k in err.errors(include_url=False)[0]["loc"]]
            place = at(path, text, where) if path is not None else None
            raise explain_invalid(cls, err, place) from err

    @classmethod
    def mistakes(cls, path: Path) -> list[ConfigError]:
        """List every mistake of a configuration file, each with line and column.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        list of ConfigError
            Empty when `load` would read the file.
        """
        try:
            values, text = read(path)
            cls.model_validate(values)
        except ConfigError as err:
            return [err]
        except ValidationError as err:
            return [
                _explain(cls, one, at(path, text, [str(k) for k in one["loc"]]))
                for one in err.errors(include_url=False)
            ]
        return []

    def save(self, path: Path) -> None:
        """Write the commented file, atomically."""
        from harness.settings.toml import render

        with atomic(path) as partial:
            partial.write_text(render(self), encoding="utf-8")

    def section_hash(self, section: str) -> str:
        """Hash of the values of a section that affect products."""
        return self._section_hashes[section]

    @cached_property
    def _section_hashes(self) -> dict[str, str]:
        return {name: config_hash(getattr(self, name)) for name in type(self).model_fields}


def product_values(config: BaseModel) -> dict[str, object]:
    """Values of a section that affect products, nested ones with dotted names.

    Parameters
    ----------
    config : BaseModel
        The section.

    Returns
    -------
    dict
        Values by name.
    """
    return {
        name: value
        for name, field, value in _leaves(config)
        if field_notes(field).get("product") is not False
    }


def values_of(config: BaseModel) -> dict[str, object]:
    """All values of a section or of all sections, nested ones with dotted names.

    Parameters
    ----------
    config : BaseModel
        The section.

    Returns
    -------
    dict
        Values by name.
    """
    return {name: value for name, _, value in _leaves(config)}


def changed_values(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Say which values differ: ``kernel_size 21→25``.

    Parameters
    ----------
    old, new : dict
        Values by name.

    Returns
    -------
    list of str
        One entry per value.
    """
    return [
        f"{name} {old.get(name)}→{new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, FieldInfo, object]]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, value


def _override(values: dict[str, Any], text: str) -> None:
    key, sign, raw = text.partition("=")
    *sections, name = key.strip().split(".")
    if not sign or not sections:
        raise ConfigError("cannot be used", key=text, expected="section.key=value")
    for section in sections:
        values = values.setdefault(section, {})
    try:
        values[name] = tomllib.loads(f"v = {raw.strip()}")["v"]
    except tomllib.TOMLDecodeError:
        values[name] = raw.strip()


def explain_invalid(
    model: type[BaseModel], err: ValidationError, path: Path | str | None
) -> ConfigError:
    first, *others = err.errors(include_url=False)
    return _explain(model, first, path, f"; {len(others)} more" if others else "")


def _explain(
    model: type[BaseModel], error: ErrorDetails, path: Path | str | None, more: str = ""
) -> ConfigError:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], _known(model, location[:-1]), n=1)
        hint = f"did you mean {'.'.join([*location[:-1], near[0]])}?" if near else None
        return ConfigError(f"unknown key{more}", path=path, key=key, hint=hint)
    message = error["msg"].removeprefix("Value error, ")
    return ConfigError(f"{message}, not {error['input']!r}{more}", path=path, key=key)


def _known(model: type[BaseModel], location: list[str]) -> list[str]:
    for name in location:
        field = model.model_fields.get(name)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
