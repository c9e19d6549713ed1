"""What every plan must keep to, whatever frames there are and in which order they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.footprints import shared_fractions
from harness.plan import (
    OPEN,
    SCIENCE,
    TEMPLATE,
    Frame,
    TemplatePlan,
    assign_roles,
    group_by_overlap,
    plan_templates,
    reference_frames,
)
from harness.settings import Campaign

SIDE = 0.1
_Key = tuple[int, int]


def _frame(visit: int, ra: float, band: str, detector: int) -> Frame:
    h = 0.5 * SIDE
    corners = (ra - h, -h, ra + h, -h, ra + h, h, ra - h, h)
    return Frame(
        visit, detector, role=OPEN, kind="generic", path=Path(f"{visit}"), corners=corners,
        band=band, field_name="F", mjd=57000.0 + visit,
    )  # fmt: skip


# Fields lie a degree apart, frames of one field a few hundredths.
_PLACES = st.tuples(st.integers(0, 1), st.integers(0, 4)).map(lambda p: 10.0 + p[0] + 0.01 * p[1])
FRAMES = st.lists(
    st.tuples(_PLACES, st.sampled_from("gr"), st.integers(1, 2), st.floats(0.7, 2.0)),
    min_size=1,
    max_size=14,
)
CAMPAIGNS = st.builds(
    lambda wanted, most: Campaign(template_inputs=wanted, template_inputs_max=max(wanted, most)),
    st.integers(1, 4),
    st.integers(1, 8),
)


def _made(drawn: list[tuple[float, str, int, float]]) -> tuple[list[Frame], dict[_Key, float]]:
    frames = [_frame(k, ra, band, detector) for k, (ra, band, detector, _) in enumerate(drawn)]
    seeing = {f.unit: d[3] for f, d in zip(frames, drawn, strict=True)}
    return frames, seeing


def _plan(
    frames: list[Frame], campaign: Campaign, seeing: dict[_Key, float]
) -> tuple[dict[_Key, str], set[TemplatePlan]]:
    roles = assign_roles(frames, campaign, seeing)
    return {f.unit: f.role for f in roles}, set(plan_templates(roles, campaign, seeing))


@given(FRAMES, CAMPAIGNS)
@settings(max_examples=60)
def test_templates_are_of_other_frames_of_the_same_sky_and_band(
    drawn: list[tuple[float, str, int, float]], campaign: Campaign
) -> None:
    frames, seeing = _made(drawn)
    by_unit = {f.unit: f for f in frames}

    roles, plans = _plan(frames, campaign, seeing)

    served = [unit for plan in plans for unit in plan.serves]
    assert len(served) == len(set(served))
    assert {roles[unit] for unit in served} <= {SCIENCE}
    assert len({plan.name for plan in plans}) == len(plans)
    for plan in plans:
        assert 1 <= len(plan.inputs) <= campaign.template_inputs_max
        assert len(set(plan.inputs)) == len(plan.inputs)
        for unit in plan.serves:
            assert unit not in plan.inputs
            assert {by_unit[u].band for u in (unit, *plan.inputs)} == {plan.band}
            for other in plan.inputs:
                both = np.array([by_unit[unit].corners, by_unit[other].corners])
                assert shared_fractions(both, np.array([[0, 1]]))[0] >= campaign.overlap


@given(FRAMES, CAMPAIGNS, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_order_of_the_frames_is_of_no_account(
    drawn: list[tuple[float, str, int, float]], campaign: Campaign, random: Any
) -> None:
    frames, seeing = _made(drawn)
    shuffled = list(frames)
    random.shuffle(shuffled)

    assert _plan(shuffled, campaign, seeing) == _plan(frames, campaign, seeing)
    assert reference_frames(shuffled, 0.2) == reference_frames(frames, 0.2)


@given(FRAMES, CAMPAIGNS)
@settings(max_examples=60)
def test_every_frame_has_one_role_and_one_group(
    drawn: list[tuple[float, str, int, float]], campaign: Campaign
) -> None:
    frames, seeing = _made(drawn)

    roles, _ = _plan(frames, campaign, seeing)
    grouped = [f.unit for group in group_by_overlap(frames, campaign.overlap) for f in group]

    assert roles.keys() == {f.unit for f in frames}
    assert set(roles.values()) <= {TEMPLATE, SCIENCE}
    assert sorted(grouped) == sorted(roles)


@given(FRAMES)
@settings(max_examples=40)
def test_no_frame_is_tied_to_itself_or_to_one_that_is_tied(
    drawn: list[tuple[float, str, int, float]],
) -> None:
    frames, _ = _made(drawn)

    pairs = reference_frames(frames, 0.2)

    assert not pairs.keys() & set(pairs.values())
