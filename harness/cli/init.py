"""``nightjar init``: make a workspace."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import Json, WorkspacePath, emit

__all__ = ["init"]


def init(
    workspace: WorkspacePath,
    profile: Annotated[
        str, typer.Option(help="Simulation profile: tiny, mini, ci ...; none for real exposures.")
    ] = "",
    camera: Annotated[
        str | None,
        typer.Option(
            help="Camera of real exposures: a name of `nightjar camera list`, or a TOML file.",
            show_default="decam",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 42,
    name: Annotated[
        str | None, typer.Option(help="Name of the campaign.", show_default="the folder's name")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a WORKSPACE: its folders and nightjar.toml, the commented configuration.

    With --profile the workspace is for a simulated campaign (next: nightjar sim), without it for
    real exposures (next: nightjar ingest).
    """
    from harness.ingest.cameras import adopt_camera
    from harness.settings import Campaign, Settings
    from harness.workspace import Workspace
    from pipeline.camera import Camera
    from pipeline.errors import ConfigError

    if profile:
        camera = _profile_camera(profile, camera)
    chosen = camera or "decam"
    definition = Camera.load(chosen)
    if definition.simulated and not profile and not chosen.endswith(".toml"):
        raise ConfigError(
            f"camera {chosen!r} exists only in simulations", expected="--profile as well"
        )
    space = Workspace.create(workspace)
    chosen = adopt_camera(space, chosen)
    campaign = Campaign(
        name=name or workspace.resolve().name, profile=profile, camera=chosen, seed=seed
    )
    Settings(campaign=campaign).save(space.config)
    following = f"nightjar {'sim' if profile else 'ingest'} {workspace}"
    if as_json:
        emit({"workspace": str(workspace), "profile": profile, "camera": chosen, "seed": seed})
    else:
        typer.echo(f"{space.config} written; next: {following}")


def _profile_camera(profile: str, camera: str | None) -> str:
    import difflib

    import sims
    from pipeline.errors import ConfigError

    known = sims.profiles()
    if profile not in known:
        near = difflib.get_close_matches(profile, known, n=1)
        hint = f"did you mean {near[0]}?" if near else None
        raise ConfigError(f"unknown profile {profile!r}", expected=", ".join(known), hint=hint)
    if camera is not None:
        raise ConfigError("--camera does not go with --profile, which has its own camera")
    return str(known[profile].camera)
