"""What a worker is asked to do: one order is one task on one unit.

Orders are plain values that travel between processes: paths, hashes, small tables and the
settings.  Everything that a product depends on is in its order's keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from harness.plan import Frame, Unit
from harness.settings import Settings
from harness.workspace import Workspace

__all__ = [
    "AlertOrder",
    "DifferenceOrder",
    "ForcedOrder",
    "Order",
    "StageKey",
    "TemplateInput",
    "TemplateOrder",
    "VisitImageOrder",
]


@dataclass(frozen=True, slots=True)
class StageKey:
    """Resume key of one stage: same key, same result.

    Attributes
    ----------
    stage : str
        Its name.
    input_hash, config_hash, version : str, str, int
        Contents of the inputs, values of the configuration, version of the code.
    """

    stage: str
    input_hash: str
    config_hash: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What all orders have.

    Attributes
    ----------
    visit, detector : int
        The unit; visit 0 for templates.
    keys : tuple of StageKey
        One per stage of the task, in order.
    products : tuple of Path
        Files that must be there for the task to count as done.
    space : Workspace
        Where to read and write.
    settings : Settings
        The resolved configuration.
    cards : mapping
        Provenance that all products share: software and run.
    attempt : int
        1, or more after a worker died.
    template_id : str, optional
        The template, for orders that make one.
    """

    visit: int
    detector: int
    keys: tuple[StageKey, ...]
    products: tuple[Path, ...]
    space: Workspace
    settings: Settings
    cards: Mapping[str, str]
    attempt: int = 1
    template_id: str | None = None

    @property
    def unit(self) -> Unit:
        """Visit and detector."""
        return self.visit, self.detector


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitImageOrder(Order):
    """Raw frame to visit image.

    Attributes
    ----------
    frame : Frame
        What to read.
    input_sha256 : str
        Of its file.
    reference : Path, optional
        Sources of another visit image of the field, to align to where there is no reference
        catalogue.
    """

    frame: Frame
    input_sha256: str
    reference: Path | None = None


@dataclass(frozen=True, slots=True)
class TemplateInput:
    """One visit image of a template: unit, file and its SHA-256."""

    visit: int
    detector: int
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateOrder(Order):
    """Visit images to template.

    Attributes
    ----------
    field_name, band : str
        What it is of.
    inputs : tuple of TemplateInput
        What goes in.
    """

    field_name: str
    band: str
    inputs: tuple[TemplateInput, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceOrder(Order):
    """Visit image minus template, and the sources on it.

    Attributes
    ----------
    template_name, template_sha256, science_sha256 : str
        Which template, and what the two files held.
    """

    template_name: str
    template_sha256: str
    science_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedOrder(Order):
    """Forced photometry of known objects on a difference image.

    Attributes
    ----------
    objects : pyarrow.Table
        Objects as they were known, with the time at which each became so.
    """

    objects: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertOrder(Order):
    """Alert packets of a unit.

    Attributes
    ----------
    template_name : str
        Template of the unit.
    tables : mapping of str to pyarrow.Table
        ``sources objects history forced ss_sources matches`` as known at the visit.
    """

    template_name: str
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
