from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.plan import (
    OPEN,
    SCIENCE,
    TEMPLATE,
    Frame,
    Selection,
    assign_roles,
    group_by_overlap,
    plan_templates,
    reference_frames,
)
from harness.settings import Campaign
from harness.system.dates import periods
from pipeline.errors import ConfigError

SIDE = 0.1


def square(ra: float, dec: float, side: float = SIDE) -> tuple[float, ...]:
    h = 0.5 * side
    return (ra - h, dec - h, ra + h, dec - h, ra + h, dec + h, ra - h, dec + h)


def frame(
    visit: int, detector: int = 1, role: str = OPEN, ra: float = 10.0, **more: object
) -> Frame:
    corners = square(ra, 0.0) if role == OPEN else ()
    values = {"band": "r", "field_name": "F", "mjd": 57000.0 + visit, **more}
    return Frame(
        visit, detector, role=role, kind="generic", path=Path(f"{visit}"), corners=corners, **values
    )  # type: ignore[arg-type]


def test_fields_are_found_on_the_sky_whatever_the_detector() -> None:
    frames = [frame(1, 33), frame(2, 34, ra=10.05), frame(3, 25, ra=40.0), frame(4, 25, band="g")]
    groups = [{f.visit for f in g} for g in group_by_overlap(frames, 0.2)]
    assert sorted(groups, key=min) == [{1, 2}, {3}, {4}]


def test_few_visits_get_templates_made_of_all_others() -> None:
    frames = assign_roles(
        [frame(v) for v in (1, 2, 3)], Campaign(), {(v, 1): 1.0 for v in (1, 2, 3)}
    )
    assert {f.role for f in frames} == {SCIENCE}
    plans = plan_templates(frames, Campaign(), {(1, 1): 1.2, (2, 1): 1.0, (3, 1): 1.1})
    assert {p.serves: p.inputs for p in plans} == {
        ((1, 1),): ((2, 1), (3, 1)),
        ((2, 1),): ((3, 1), (1, 1)),
        ((3, 1),): ((2, 1), (1, 1)),
    }
    assert len({p.name for p in plans}) == 3


def test_many_visits_set_the_deepest_aside() -> None:
    noise = {(v, 1): 2.0 - 0.1 * v for v in range(1, 9)}
    frames = assign_roles([frame(v) for v in range(1, 9)], Campaign(template_inputs=3), noise)
    assert [f.visit for f in frames if f.role == TEMPLATE] == [6, 7, 8]
    (plan,) = plan_templates(frames, Campaign(template_inputs=3), noise)
    assert plan.inputs == ((8, 1), (7, 1), (6, 1))
    assert [v for v, _ in plan.serves] == [1, 2, 3, 4, 5]


def test_science_is_never_in_its_own_template() -> None:
    for n in range(1, 12):
        noise = {(v, 1): 1.0 + 0.01 * v for v in range(n)}
        frames = assign_roles([frame(v) for v in range(n)], Campaign(), noise)
        for plan in plan_templates(frames, Campaign(), noise):
            assert not set(plan.inputs) & set(plan.serves)


def test_images_off_the_common_flux_scale_are_no_inputs_if_others_are_there() -> None:
    noise = {(1, 1): 1.0, (2, 1): float("inf"), (3, 1): 1.1}
    frames = assign_roles([frame(v) for v in (1, 2, 3)], Campaign(), noise)
    inputs = {p.serves[0][0]: p.inputs for p in plan_templates(frames, Campaign(), noise)}
    assert inputs == {1: ((3, 1),), 2: ((1, 1), (3, 1)), 3: ((1, 1),)}


def test_simulated_roles_pair_field_band_and_detector() -> None:
    frames = [frame(v, d, TEMPLATE) for v in (1, 2) for d in (1, 2)]
    frames += [frame(5, d, SCIENCE) for d in (1, 2)] + [frame(6, 1, SCIENCE, band="g")]
    plans = plan_templates(frames, Campaign(), {})
    assert [p.name for p in plans] == ["F_r_01", "F_r_02"]
    assert plans[1].inputs == ((1, 2), (2, 2))
    assert plans[1].serves == ((5, 2),)


def test_reference_is_one_visit_of_the_field() -> None:
    pairs = reference_frames([frame(v) for v in (1, 2, 3)] + [frame(9, ra=50.0)], 0.2)
    assert pairs == {(1, 1): (2, 1), (3, 1): (2, 1)}


def test_short_exposures_are_no_reference() -> None:
    times = {1: 300.0, 2: 20.0, 3: 250.0, 4: 10.0}
    frames = [frame(v, exptime=t) for v, t in times.items()]
    assert reference_frames(frames, 0.2) == {(1, 1): (3, 1), (2, 1): (3, 1), (4, 1): (3, 1)}
    assert reference_frames(frames, 0.2, {(3, 1)})[3, 1] == (1, 1)
    assert reference_frames(frames[1:], 0.2, {(3, 1)})[3, 1] == (2, 1)


def test_another_frame_takes_the_place_of_an_unfit_reference() -> None:
    frames = [frame(v) for v in (1, 2, 3)]
    assert reference_frames(frames, 0.2, {(2, 1)}) == {(2, 1): (1, 1), (3, 1): (1, 1)}
    assert reference_frames(frames, 0.2, {(1, 1)}) == {(1, 1): (2, 1), (3, 1): (2, 1)}


def test_selection_by_number_and_time() -> None:
    chosen = Selection(detectors=frozenset({1}), since=57002.0, until=57003.0)
    assert [v for v in range(1, 6) if chosen.keeps(frame(v))] == [2, 3]
    assert not chosen.keeps(frame(2, 7))
    assert Selection().keeps(frame(1))


def test_dates_are_kept_out_of_templates() -> None:
    noise = {(v, 1): 2.0 - 0.1 * v for v in range(1, 9)}
    campaign = Campaign(template_inputs=3, template_without="57005/")
    frames = assign_roles([frame(v) for v in range(1, 9)], campaign, noise)
    assert [f.visit for f in frames if f.role == TEMPLATE] == [2, 3, 4]

    few = Campaign(template_inputs=3, template_without="57001/57001.5 57003/")
    frames = assign_roles([frame(v) for v in range(1, 5)], few, noise)
    plans = plan_templates(frames, few, noise)
    assert {p.serves: p.inputs for p in plans} == {((1, 1), (3, 1), (4, 1)): ((2, 1),)}

    given = [frame(v, role=TEMPLATE) for v in (1, 2)] + [frame(3, role=SCIENCE)]
    (plan,) = plan_templates(given, Campaign(template_without="/57001.5"), noise)
    assert plan.inputs == ((2, 1),)


def test_periods_are_dates_in_order() -> None:
    assert periods("") == ()
    day, since = periods("2015-02-17 2015-02-18T12:00:00/")
    assert day[1] - day[0] == pytest.approx(1.0)
    assert since == (day[1] + 0.5, math.inf)
    for wrong in ("tomorrow/", "57002/57001", "nan"):
        with pytest.raises(ConfigError):
            periods(wrong)
        with pytest.raises(ValueError, match="template_without"):
            Campaign(template_without=wrong)
