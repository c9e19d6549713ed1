"""The workspace's own copy of a camera definition, with the defects of its exposures."""

from __future__ import annotations

import csv
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pipeline.camera
from harness.workspace import Workspace, atomic
from pipeline.camera import Box

__all__ = ["keep_camera"]


def keep_camera(
    space: Workspace, source: Path | str, defects: Mapping[int, tuple[Box, ...]] | None
) -> str:
    """Copy a camera definition into a workspace, where it is not one that comes with Nightjar.

    Parameters
    ----------
    space : Workspace
        The workspace.
    source : Path or str
        Name of a bundled camera, or its TOML file.
    defects : mapping of int to tuple of Box, optional
        Defects by detector, in place of those of the definition.

    Returns
    -------
    str
        Name of the camera for ``campaign.camera``.
    """
    bundled = not str(source).endswith(".toml")
    if bundled and defects is None:
        return str(source)
    origin = Path(source)
    if bundled:
        origin = Path(pipeline.camera.__file__).parent / f"{source}.toml"
    text = origin.read_text(encoding="utf-8")
    spec = tomllib.loads(text)
    target = space.root / "calib" / "camera" / f"{spec['name']}.toml"
    for kind, name in spec.get("files", {}).items():
        if not isinstance(name, str):  # a short table stands in the definition itself
            continue
        path = target.parent / name
        if kind == "defects" and defects is not None:
            _write_defects(path, defects)
        elif path != origin.parent / name:
            with atomic(path) as partial:
                shutil.copyfile(origin.parent / name, partial)
    if target != origin:
        with atomic(target) as partial:
            partial.write_text(text, encoding="utf-8")
    return str(spec["name"])


def _write_defects(path: Path, defects: Mapping[int, tuple[Box, ...]]) -> None:
    with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["detector", "x0", "y0", "width", "height"])
        for number, boxes in sorted(defects.items()):
            writer.writerows([number, b.x0, b.y0, b.width, b.height] for b in boxes)
