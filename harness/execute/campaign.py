"""A campaign from raw frames to alerts, phase after phase.

The order of the phases is the order of the data: visit images, templates, differences with their
sources, association in the order of time, forced photometry, alerts.  Within a phase the units
are independent.  A unit whose key (inputs, configuration, version) is the recorded one is not done
again; one that fails is recorded with its cause, what needs it is recorded as blocked, and the
rest goes on.  Only this process writes the catalogue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.execute.association import Association
from harness.execute.book import CACHED, TODO, Book
from harness.execute.frames import load_frames
from harness.execute.keys import stage_key
from harness.execute.orders import (
    DifferenceOrder,
    Order,
    TemplateInput,
    TemplateOrder,
    VisitImageOrder,
)
from harness.execute.pool import Executor
from harness.hashes import combine
from harness.ledger import BLOCKED, DONE, StageRecord
from harness.log import Logbook
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
from harness.progress import ProgressDisplay
from pipeline import io
from pipeline.camera import Camera

__all__ = ["Campaign", "Summary"]


@dataclass(slots=True)
class Summary:
    """What a run did, or would do.

    Attributes
    ----------
    counts : dict of str to Counter
        Per phase: units done, cached, failed, blocked.
    troubles : list of StageRecord
        Everything that is not done, in order.
    reasons : list of tuple
        Phase, visit, detector, template and why it is (or would be) done.
    instrumental : int
        Difference images without a zero point: their fluxes are electrons instead of nJy.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    troubles: list[StageRecord] = field(default_factory=list)
    reasons: list[tuple[str, int, int, str | None, str]] = field(default_factory=list)
    instrumental: int = 0

    @property
    def exit_code(self) -> int:
        """0 when all is done, 70 after a bug of ours, else 1."""
        if any(t.cause == "INTERNAL" for t in self.troubles):
            return 70
        return 1 if self.troubles else 0


class Campaign:
    """Runs all phases of a workspace.

    Parameters
    ----------
    book : Book
        Catalogue, hashes, settings and folder.
    executor : Executor, optional
        Does the work; without it everything is planned and nothing done.
    display, logbook : ProgressDisplay, Logbook
        Where it is shown and written down.
    selection : Selection
        Which science units are meant.
    cards : mapping
        Provenance cards of the run: SOFTVER, RUNID.
    retry : bool
        Whether known failures are tried again.
    """

    def __init__(
        self,
        book: Book,
        executor: Executor | None,
        display: ProgressDisplay,
        logbook: Logbook | None,
        selection: Selection,
        cards: Mapping[str, str],
        *,
        retry: bool = False,
    ) -> None:
        self.book, self.executor, self.display = book, executor, display
        self.logbook, self.selection, self.cards, self.retry = logbook, selection, cards, retry
        self.space, self.settings = book.space, book.settings
        self.summary = Summary()
        self._promised: set[tuple[int, int, str | None]] = set()  # by a plan that is not performed
        campaign = self.settings.campaign
        self.camera = Camera.load(self.space.camera(campaign.camera))
        frames, self.skipped = load_frames(self.space, self.camera)
        self.frames = {f.unit: f for f in frames}
        self.chosen = _selected(frames, selection)

    def run(self) -> Summary:
        """Do what is to be done.

        Returns
        -------
        Summary
            Counts and troubles.
        """
        if self.executor is not None:
            self._register()
        self._visit_images()
        plans = self._templates()
        self._differences(plans)
        association = Association(self.book, self.frames, plans, self.cards)
        self._associate(association)
        if self._phase("forced", association.forced_orders()):
            association.refresh_forced_means()
        self._phase("alerts", association.alert_orders())
        self.summary.instrumental = self.book.instrumental()
        return self.summary

    # -- phases ------------------------------------------------------------------------------

    def _register(self) -> None:
        """Take the exposures and the skipped detectors into the catalogue."""
        catalog = self.book.catalog
        with catalog.transaction():
            catalog.replace("exposure", io.read_parquet(self.space.exposures))
        self.book.put(self.skipped)
        self.book.memory.keep(self.settings)
        self.settings.save(self.space.logs / "config" / f"{self.cards['RUNID']}.toml")

    def image_orders(self) -> Iterator[Order]:
        """Yield the order of every image product of the plan, doing nothing."""
        references = self._references()
        for frame in self.frames.values():
            yield self._image_order(frame, references.get(frame.unit))
        plans = self._plan_templates()
        yield from (self._template_order(plan) for plan in plans)
        for plan in plans:
            yield from (self._difference_order(self.frames[unit], plan) for unit in plan.serves)

    def _references(self) -> dict[Unit, Unit]:
        """Frames that are aligned to another one, for want of a reference catalogue."""
        if self.space.refcat.is_file():
            return {}
        unfit = {u for u in self.frames if self.book.failed(*u, ("isr", "calibrate"))}
        least = self.settings.campaign.overlap
        return reference_frames(list(self.frames.values()), least, unfit)

    def _visit_images(self) -> None:
        wanted = [f for f in self.frames.values() if f.unit in self.chosen]
        references = self._anchored(wanted)
        first = [f for f in wanted if f.unit not in references]
        self._phase("visit image", [self._image_order(f, None) for f in first])
        rest = [f for f in wanted if f.unit in references]
        if rest:
            usable = [f for f in rest if self._done(references[f.unit], "calibrate")]
            orders = [self._image_order(f, references[f.unit]) for f in usable]
            lost = [f.unit for f in rest if f not in usable]
            self._phase("aligned image", orders, _blocked(lost, "isr", "its reference failed"))

    def _anchored(self, wanted: Sequence[Frame]) -> dict[Unit, Unit]:
        """Make the reference frames, and others in their place where one fails."""
        tried: set[Unit] = set()
        while True:
            references = self._references()
            anchors = {references[f.unit] for f in wanted if f.unit in references} - tried
            if not anchors:
                return references
            orders = [self._image_order(self.frames[unit], None) for unit in sorted(anchors)]
            self._phase("reference", orders, final=False)
            tried |= anchors

    def _templates(self) -> list[TemplatePlan]:
        """Plan all templates; make those of the chosen units."""
        plans = self._plan_templates()
        if self.executor is not None:
            self.book.retire({p.name for p in plans}, {u for p in plans for u in p.serves})
        wanted = [p for p in plans if self.chosen.intersection(p.serves)]
        self._phase("template", [self._template_order(p) for p in wanted])
        return plans

    def _plan_templates(self) -> list[TemplatePlan]:
        campaign = self.settings.campaign
        seeing = self._seeing()
        good = [f for f in self.frames.values() if self._done(f.unit, "calibrate")]
        good = assign_roles(good, campaign, seeing)
        self.frames |= {f.unit: f for f in good}
        return plan_templates(good, campaign, seeing)

    def _differences(self, plans: Sequence[TemplatePlan]) -> None:
        orders: list[Order] = []
        records: list[StageRecord] = []
        planned = {unit: plan for plan in plans for unit in plan.serves}
        for frame in self._science():
            plan = planned.get(frame.unit)
            trouble = self._difference_trouble(frame, plan)
            if trouble or plan is None:
                records += _blocked([frame.unit], "subtract", trouble)
                records += _blocked([frame.unit], "diasource", "subtract")
            else:
                orders.append(self._difference_order(frame, plan))
        self._phase("difference", orders, records)

    def _difference_trouble(self, frame: Frame, plan: TemplatePlan | None) -> str:
        if not self._done(frame.unit, "calibrate"):
            return "its visit image failed"
        if plan is None:
            return f"no template: no other visit image of {frame.field_name} in {frame.band} here"
        if not self._template_done(plan):
            return f"template {plan.name} failed"
        return ""

    def _associate(self, association: Association) -> None:
        visits = association.pending()
        if self.executor is not None:
            association.reset({v for v, _ in visits})
            visits = association.pending()  # an emptied catalogue is filled from the first visit on
        self._start("association", len(association.visits))
        for _ in range(len(association.visits) - len(visits)):
            self._count("association", CACHED)
        for visit, reason in visits:
            self._note_reason("association", visit, -1, None, reason)
            if self.executor is None:
                self._count("association", TODO)
            else:
                self._finish_unit("association", association.associate(visit))
        self.display.finish()

    def _seeing(self) -> dict[Unit, float]:
        """PSF width of the visit images; infinite for those that missed the common flux scale."""
        rows = self.book.catalog.rows(
            """SELECT v.visit, v.detector, v.psfFwhm, m.value AS scale FROM visit_image v
            LEFT JOIN metric m ON m.visit = v.visit AND m.detector = v.detector
              AND m.name = 'fluxScale'"""
        )
        references = self._references()
        width = {(r["visit"], r["detector"]): r["psfFwhm"] or float("inf") for r in rows}
        tied = {(r["visit"], r["detector"]) for r in rows if r["scale"] is not None}
        return {
            u: w if u in tied or u not in references else float("inf") for u, w in width.items()
        }

    # -- orders ------------------------------------------------------------------------------

    def _common(self) -> dict[str, Any]:
        return {"space": self.space, "settings": self.settings, "cards": self.cards}

    def _image_order(self, frame: Frame, reference: Unit | None) -> VisitImageOrder:
        of, space = self.book.hashes.of, self.space
        raw = of(frame.path)
        path = space.staging("calibrate", *reference) if reference else None
        detrended = combine([raw, str(frame.detector), *self._calibration_hashes(frame)])
        calibrated = combine([detrended, of(space.refcat), of(path) if path else ""])
        return VisitImageOrder(
            visit=frame.visit,
            detector=frame.detector,
            keys=(
                stage_key(self.settings, "isr", detrended),
                stage_key(self.settings, "calibrate", calibrated),
            ),
            products=(space.visit_image(*frame.unit),),
            frame=frame,
            input_sha256=raw,
            reference=path,
            **self._common(),
        )

    def _calibration_hashes(self, frame: Frame) -> list[str]:
        space, of = self.space, self.book.hashes.of
        own = sorted((space.root / "calib" / "camera").rglob("*.*"))
        files = [space.bias(frame.detector), space.flat(frame.band, frame.detector), *own]
        return [of(path) for path in files if path.is_file()]

    def _template_order(self, plan: TemplatePlan) -> TemplateOrder:
        inputs = tuple(
            TemplateInput(v, d, path, self.book.hashes.of(path))
            for v, d in plan.inputs
            for path in [self.space.visit_image(v, d)]
        )
        frame = self.frames[plan.serves[0]]
        return TemplateOrder(
            visit=0,
            detector=frame.detector,
            keys=(stage_key(self.settings, "template", combine(i.sha256 for i in inputs)),),
            products=(self.space.template(plan.name),),
            template_id=plan.name,
            field_name=frame.field_name,
            band=plan.band,
            inputs=inputs,
            **self._common(),
        )

    def _difference_order(self, frame: Frame, plan: TemplatePlan) -> DifferenceOrder:
        of = self.book.hashes.of
        science = of(self.space.visit_image(*frame.unit))
        template = of(self.space.template(plan.name))
        input_hash = combine([science, template, self.settings.section_hash("template")])
        return DifferenceOrder(
            visit=frame.visit,
            detector=frame.detector,
            keys=(
                stage_key(self.settings, "subtract", input_hash),
                stage_key(
                    self.settings,
                    "diasource",
                    combine([input_hash, self.settings.section_hash("subtract")]),
                ),
            ),
            products=(self.space.difference(*frame.unit),),
            template_name=plan.name,
            template_sha256=template,
            science_sha256=science,
            **self._common(),
        )

    # -- bookkeeping -------------------------------------------------------------------------

    def _phase(
        self,
        label: str,
        orders: Sequence[Order],
        troubled: Sequence[StageRecord] = (),
        *,
        final: bool = True,
    ) -> int:
        """Perform what must be, count what need not be, record what cannot be.

        Returns the number of orders performed.  Troubles of a phase that is not final are not
        troubles of the run, since something else will be tried.
        """
        before = list(self.summary.troubles)
        standings = [(order, self.book.standing(order, retry=self.retry)) for order in orders]
        todo = [order for order, standing in standings if standing.status == TODO]
        self._start(label, len(orders) + len({(t.visit, t.detector) for t in troubled}))
        for order, standing in standings:
            if standing.status == TODO:
                self._note_reason(label, *order.unit, order.template_id, standing.reason)
            else:
                self._count(label, standing.status)
                self.summary.troubles += self.book.known(order)
        self._record_troubled(label, troubled)
        if self.executor is None:
            self._counts(label)[TODO] += len(todo)
            self._promised |= {(*o.unit, o.template_id) for o in todo}
        else:
            self._perform(label, todo)
        if not final:
            self.summary.troubles = before
        self.display.finish()
        return 0 if self.executor is None else len(todo)

    def _perform(self, label: str, todo: Sequence[Order]) -> None:
        assert self.executor is not None
        waiting = {(order.unit, order.template_id): order for order in todo}
        for outcome in self.executor.map(todo):
            template_id = outcome.stages[0].template_id
            order = waiting[(outcome.visit, outcome.detector), template_id]
            self.book.accept(order, outcome)
            if self.logbook is not None:
                self.logbook.write(outcome.logs)
            self._finish_unit(label, outcome.stages)
        self.book.hashes.save()

    def _record_troubled(self, label: str, records: Sequence[StageRecord]) -> None:
        if self.executor is not None:
            self.book.put(records)
        self.summary.troubles += records
        for _ in {(r.visit, r.detector) for r in records}:
            self._count(label, BLOCKED)

    def _finish_unit(self, label: str, records: Sequence[StageRecord]) -> None:
        troubles = [r for r in records if r.status != DONE]
        self.summary.troubles += troubles
        note = ""
        if troubles:
            first = troubles[0]
            where = first.template_id or f"visit {first.visit} detector {first.detector}"
            note = f"{where}: {first.stage} {first.status}: {first.cause}: {first.message}"
        self._count(label, troubles[0].status if troubles else DONE, note)

    def _start(self, label: str, total: int) -> None:
        self._counts(label)
        self.display.start(label, total)

    def _counts(self, label: str) -> Counter[str]:
        return self.summary.counts.setdefault(label, Counter())

    def _count(self, label: str, status: str, note: str = "") -> None:
        self._counts(label)[status] += 1
        self.display.advance(status, note)

    def _note_reason(
        self, label: str, visit: int, detector: int, template: str | None, reason: str
    ) -> None:
        self.summary.reasons.append((label, visit, detector, template, reason))

    def _science(self) -> list[Frame]:
        """Chosen frames to subtract a template from, in the order of time."""
        return [f for f in self.frames.values() if f.unit in self.chosen and f.role != TEMPLATE]

    def _done(self, unit: Unit, stage: str) -> bool:
        return self.book.status(*unit, stage) == DONE or (*unit, None) in self._promised

    def _template_done(self, plan: TemplatePlan) -> bool:
        detector = self.frames[plan.serves[0]].detector
        done = self.book.status(0, detector, "template", plan.name) == DONE
        return done or (0, detector, plan.name) in self._promised


def _selected(frames: Sequence[Frame], selection: Selection) -> frozenset[Unit]:
    """Science units of the selection, and every template unit that they may need."""
    detectors = {f.detector for f in frames if selection.keeps(f)}
    return frozenset(
        f.unit
        for f in frames
        if selection.keeps(f) or (f.role == TEMPLATE and f.detector in detectors)
    )


def _blocked(units: Sequence[Unit], stage: str, why: str) -> list[StageRecord]:
    return [StageRecord(*u, stage, BLOCKED, "BLOCKED", why, attempts=0) for u in units]
