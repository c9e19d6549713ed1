"""What tasks read of the campaign when they plan their work."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.campaign.frames import load_frames
from harness.campaign.state import RunState
from harness.ledger import DONE, FAILED, Target
from harness.plan import (
    TEMPLATE,
    Frame,
    Selection,
    TemplatePlan,
    Unit,
    assign_roles,
    plan_templates,
    reference_frames,
)
from pipeline.camera import Camera

__all__ = ["Context"]


class Context:
    """Frames, templates and state of one invocation.

    Parameters
    ----------
    state : RunState
        What is recorded.
    selection : Selection
        Which science units are meant.
    cards : mapping
        Provenance cards of the run: SOFTVER, RUNID.
    performing : bool
        Whether the plan is carried out.

    Attributes
    ----------
    frames : dict of Unit to Frame
        Everything that can be processed, in the order of time.
    skipped : list of StageRecord
        Detectors that are not processed, with the reason.
    chosen : frozenset of Unit
        Science units of the selection, and every template unit that they may need.
    """

    def __init__(
        self,
        state: RunState,
        selection: Selection,
        cards: Mapping[str, str],
        *,
        performing: bool,
    ) -> None:
        self.state, self.cards, self.performing = state, cards, performing
        self.space, self.settings = state.space, state.settings
        camera = Camera.load(self.space.camera(self.settings.campaign.camera))
        frames, self.skipped = load_frames(self.space, camera)
        self.frames = {f.unit: f for f in frames}
        self.chosen = _selected(frames, selection)
        self._assumed_done: set[tuple[Target, str]] = set()

    def common(self) -> dict[str, Any]:
        """Return what every work item holds, as keywords."""
        space = {"space": self.space, "output": self.space}
        return {**space, "settings": self.settings, "cards": self.cards}

    @cached_property
    def camera_files(self) -> tuple[Path, ...]:
        """Files of the workspace's own definition of the camera."""
        return tuple(sorted((self.space.root / "calib" / "camera").rglob("*.*")))

    def assume_done(self, targets: Collection[Target], stages: Collection[str]) -> None:
        """Take as done what a plan that is not carried out would do."""
        self._assumed_done |= {(target, stage) for target in targets for stage in stages}

    def done(self, target: Target, stage: str) -> bool:
        """Whether a stage of a target is done, or would be by now."""
        return self.state.status(target, stage) == DONE or (target, stage) in self._assumed_done

    @property
    def references(self) -> dict[Unit, Unit]:
        """Frames that are aligned to another one, for want of a reference catalogue."""
        if self.space.refcat.is_file():
            return {}
        unfit = {t[:2] for t in self.state.targets(("isr", "calibrate"), (FAILED,))}
        least = self.settings.campaign.overlap
        return reference_frames(list(self.frames.values()), least, unfit)

    @cached_property
    def templates(self) -> list[TemplatePlan]:
        """All templates, planned from the visit images that are done when this is first read."""
        campaign, noise = self.settings.campaign, self._noise()
        good = [f for f in self.frames.values() if self.done(Target(*f.unit), "calibrate")]
        good = assign_roles(good, campaign, noise)
        self.frames |= {f.unit: f for f in good}
        return plan_templates(good, campaign, noise)

    @cached_property
    def template_of(self) -> dict[Unit, TemplatePlan]:
        """Template of every science unit that has one."""
        return {unit: plan for plan in self.templates for unit in plan.serves}

    def science_units(self) -> set[Target]:
        """Every science unit of the plan, selected or not."""
        return {Target(*unit) for unit in self.template_of}

    def template_target(self, plan: TemplatePlan) -> Target:
        """Target of a template."""
        return Target(0, self.frames[plan.serves[0]].detector, plan.name)

    @property
    def science(self) -> list[Frame]:
        """Chosen frames to subtract a template from, in the order of time."""
        return [f for f in self.frames.values() if f.unit in self.chosen and f.role != TEMPLATE]

    def _noise(self) -> dict[Unit, float]:
        """Noise of a point source; infinite for images that missed the common flux scale."""
        rows = self.state.catalog.rows(
            """SELECT v.visit, v.detector, v.skyNoise * v.psfFwhm / v.pixelScale AS noise,
              m.value AS scale FROM visit_image v
            LEFT JOIN metric m ON m.visit = v.visit AND m.detector = v.detector
              AND m.name = 'fluxScale'"""
        )
        references, unknown = self.references, float("inf")
        noise = {(r["visit"], r["detector"]): r["noise"] or unknown for r in rows}
        tied = {(r["visit"], r["detector"]) for r in rows if r["scale"] is not None}
        return {u: n if u in tied or u not in references else unknown for u, n in noise.items()}


def _selected(frames: Sequence[Frame], selection: Selection) -> frozenset[Unit]:
    detectors = {f.detector for f in frames if selection.keeps(f)}
    return frozenset(
        f.unit
        for f in frames
        if selection.keeps(f) or (f.role == TEMPLATE and f.detector in detectors)
    )
