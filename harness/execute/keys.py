"""Resume keys: what a result depends on, and why a recorded one no longer holds."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

from harness.execute.orders import StageKey
from harness.settings import Settings, changed_values, product_values
from harness.workspace import Workspace, atomic

__all__ = ["ConfigMemory", "difference_of", "stage_key"]

_PACKAGE = {"forced": "diaobject"}  # stages that are not a package of their own


def stage_key(settings: Settings, stage: str, input_hash: str) -> StageKey:
    """Key of a stage.

    Parameters
    ----------
    settings : Settings
        The resolved configuration.
    stage : str
        One of `harness.ledger.STAGES`.
    input_hash : str
        Hash of everything it reads.
    """
    package = _PACKAGE.get(stage, stage)
    version = importlib.import_module(f"pipeline.{package}").VERSION
    return StageKey(stage, input_hash, settings.section_hash(package), int(version))


def difference_of(
    key: StageKey, recorded: Mapping[str, Any], memory: ConfigMemory, settings: Settings
) -> str:
    """Say why a recorded stage is stale; empty if it is not.

    Parameters
    ----------
    key : StageKey
        What it would be now.
    recorded : mapping
        Its row in the table ``unit``.
    memory : ConfigMemory
        Earlier configurations.
    settings : Settings
        The present one.
    """
    if recorded["stageVersion"] != key.version:
        return f"{key.stage} version {recorded['stageVersion']}→{key.version}"
    if recorded["configHash"] != key.config_hash:
        package = _PACKAGE.get(key.stage, key.stage)
        changes = memory.changes(package, recorded["configHash"], settings)
        return ", ".join(f"{package}.{change}" for change in changes) or f"{package} configuration"
    if recorded["inputHash"] != key.input_hash:
        return f"input of {key.stage} changed"
    return ""


class ConfigMemory:
    """Keeps the values behind every configuration hash, so that a change can be named.

    Parameters
    ----------
    space : Workspace
        The values go to ``logs/config``.
    """

    def __init__(self, space: Workspace) -> None:
        self._folder = space.logs / "config"

    def keep(self, settings: Settings) -> None:
        """Remember the present values of every section."""
        for section in type(settings).model_fields:
            path = self._folder / f"{section}_{settings.section_hash(section)}.json"
            if not path.exists():
                values = product_values(getattr(settings, section))
                with atomic(path) as partial:
                    partial.write_text(json.dumps(values, default=str), encoding="utf-8")

    def changes(self, section: str, old_hash: str, settings: Settings) -> list[str]:
        """Name the values that differ from those of an earlier hash."""
        path = self._folder / f"{section}_{old_hash}.json"
        if not path.is_file():
            return []
        now = json.loads(json.dumps(product_values(getattr(settings, section)), default=str))
        return changed_values(json.loads(path.read_text(encoding="utf-8")), now)
