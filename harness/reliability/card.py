"""The model card: what the classifier was trained on and how well it does, as a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.reliability import evaluation
from harness.reliability.samples import Samples
from pipeline.diasource.reliability import FEATURES, Forest
from pipeline.errors import ConfigError
from pipeline.exposure import FloatArray

__all__ = ["Judgement", "card", "judge"]

_BINS = (5.0, 5.5, 6.5, 8.0, 12.0, 20.0, 50.0, np.inf)
_STRONG = 10.0
_MEASURED = (
    "realKept", "bogusRejected", "rejectedAt99", "calibrationError", "purity",
    "completeness9to1", "cut9to1", "completeness4to1", "cut4to1",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What a model makes of campaigns that it has not seen.

    Attributes
    ----------
    name : str
        Of the campaigns: their simulation profile.
    data : Samples
        Their detections.
    p : ndarray, (n,)
        Reliabilities.
    """

    name: str
    data: Samples
    p: FloatArray

    def numbers(self, cut: float) -> dict[str, Any]:
        """Return the numbers by which the classifier is judged."""
        clear, natural = self.data.label >= 0, ~self.data.injected
        real, bogus = clear & self.data.real, clear & ~self.data.real
        near = evaluation.faint(self.data)
        found = dict(zip(_MEASURED, self._measure(cut, np.arange(len(self.data))), strict=True))
        return {
            "sample": self.name,
            "real": int(real.sum()),
            "bogus": int(bogus.sum()),
            "falsePerSquareDegree": int((bogus & natural).sum()) / self.data.area,
            "faintReal": int((near & real).sum()),
            "faintBogus": int((near & bogus).sum()),
            **{name: float(value) for name, value in found.items()},
        }

    def ranges(self, cut: float) -> dict[str, tuple[float, float]]:
        """Return the 68 % range of each of these numbers over samples of the images."""
        low, high = evaluation.bootstrap(self.data.image, lambda rows: self._measure(cut, rows))
        return {name: (float(a), float(b)) for name, a, b in zip(_MEASURED, low, high, strict=True)}

    def _measure(self, cut: float, rows: npt.NDArray[np.intp]) -> FloatArray:
        """Return the numbers of `_MEASURED` for some of the detections."""
        p, label, injected = self.p[rows], self.data.label[rows], self.data.injected[rows]
        near = evaluation.faint(self.data)[rows]
        real, bogus, natural = label == 1, label == 0, (label >= 0) & ~injected
        points = [
            evaluation.operating_point(p[near & real], p[near & bogus], ratio)
            for ratio in evaluation.RATIOS
        ]
        return np.array(
            [
                _mean(p[real] >= cut),
                _mean(p[bogus] < cut),
                evaluation.rejected_at(p[real], p[bogus]),
                evaluation.calibration_error(p[natural], real[natural]),
                _mean(real[natural & (p >= cut)]),
                *(number for point in points for number in point),
            ]
        )


def judge(forest: Forest, samples: Mapping[str, Sequence[Samples]]) -> list[Judgement]:
    """Apply a model to campaigns.

    Parameters
    ----------
    forest : Forest
        The model.
    samples : mapping of str to sequence of Samples
        Campaigns by the name of their profile.

    Returns
    -------
    list of Judgement
        One per profile, then one of all together if there are several.

    Raises
    ------
    ConfigError
        If the model was trained on one of them.
    """
    seen = json.loads(forest.provenance)
    for part in (s for group in samples.values() for s in group):
        for name in set(part.campaigns) & set(seen["campaigns"]) | (
            set(part.seeds) & set(seen["simulations"])
        ):
            raise ConfigError(f"the model was trained on {name}", expected="campaigns not seen yet")
    joined = {name: Samples.join(group) for name, group in sorted(samples.items())}
    if len(joined) > 1:
        joined["all"] = Samples.join(list(joined.values()))
    return [Judgement(name, data, forest.predict(data.features)) for name, data in joined.items()]


def card(forest: Forest, judgements: Sequence[Judgement], cut: float) -> str:
    """Write the page.

    Parameters
    ----------
    forest : Forest
        The model.
    judgements : sequence of Judgement
        From `judge`.
    cut : float
        Least reliability of an alert.

    Returns
    -------
    str
        Markdown.
    """
    sections = [_HEAD, _about(forest, cut), _summary(judgements, cut)]
    sections += [_by_class(j, cut) for j in judgements]
    sections += [_by_snr(judgements[-1], cut), _inputs()]
    return "\n".join(sections)


_HEAD = """# The classifier of sources

Written by `nightjar train-reliability --evaluate --card docs/reliability.md`; not edited by hand.
"""


def _about(forest: Forest, cut: float) -> str:
    known = json.loads(forest.provenance)
    low, high = forest.domain
    simulations = ", ".join(known["simulations"])
    return f"""## What it is

Version `{forest.version}`, which follows from the content of the model and stands in every row as
`reliabilityVersion`.  {len(forest.start) - 1} boosted trees on {len(FEATURES)} numbers of a source
and a logistic curve, trained by software {known["software"]}
on {known["real"]} real and {known["bogus"]} bogus detections of the simulations (profile and seed)
{simulations}.
Real is what was simulated to change and what was painted into the images; bogus is everything else
that is near nothing that changes.
The curve was fitted to detections that nobody painted, on pieces of sky left out of the training.

Images whose PSF has a FWHM below {0.9 * low:.2f} or above {1.1 * high:.2f} pixels are unlike all it
was trained on: reliability is NULL there, and `reliability_flag_domain` is set.

The cut of `[alerts]` is {cut:g}.  What is below stays a DIASource, is associated, and is not
announced.
"""


_SHOWN = tuple(name for name in _MEASURED if not name.startswith("cut"))


def _summary(judgements: Sequence[Judgement], cut: float) -> str:
    head = (
        "sample", "real", "bogus", "false per deg² and visit", f"real kept at {cut:g}",
        "bogus rejected", "rejected at 99 % kept", "calibration error", "purity of alerts",
        "completeness at 95 % purity, 9:1", "4:1", "real, bogus at SNR 5.5–6.5",
    )  # fmt: skip
    rows = []
    for j in judgements:
        n, ranges = j.numbers(cut), j.ranges(cut)
        shown = [_ranged(n[name], ranges[name]) for name in _SHOWN]
        rows.append(
            (n["sample"], n["real"], n["bogus"], f"{n['falsePerSquareDegree']:.0f}", *shown,
             f"{n['faintReal']}, {n['faintBogus']}")
        )  # fmt: skip
    note = "In brackets the 68 % range over samples of the images with replacement."
    return f"## On campaigns that it has not seen\n\n{_table(head, rows)}\n\n{note}\n"


def _by_class(judgement: Judgement, cut: float) -> str:
    strong = {
        s.name: s for s in evaluation.shares(judgement.data, judgement.p, cut,
                                             least_true_snr=_STRONG)
    }  # fmt: skip
    rows = []
    for share in evaluation.shares(judgement.data, judgement.p, cut):
        low, high = share.interval
        bright = strong.get(share.name)
        rows.append(
            (share.name, share.n, f"{share.value:.3f} ({low:.3f}–{high:.3f})",
             f"{bright.value:.3f} of {bright.n}" if bright else "–")
        )  # fmt: skip
    head = ("class or cause", "detections", "kept (68 %)", f"kept, true SNR above {_STRONG:g}")
    return f"### {judgement.name}: by class and by cause\n\n{_table(head, rows)}\n"


def _by_snr(judgement: Judgement, cut: float) -> str:
    snr, rows = np.abs(judgement.data.snr), []
    for low, high in pairwise(_BINS):
        here = (snr >= low) & (snr < high) & (judgement.data.label >= 0)
        kept, real = judgement.p >= cut, judgement.data.real
        parts = [
            f"{np.mean(kept[here & side]):.3f} of {np.count_nonzero(here & side)}"
            if (here & side).any() else "–" for side in (real, ~real)
        ]  # fmt: skip
        rows.append((f"{low:g} to {high:g}", *parts))
    table = _table(("measured SNR", "real kept", "bogus kept"), rows)
    return f"### {judgement.name}: by signal to noise\n\n{table}\n"


def _inputs() -> str:
    rows = [(f"`{name}`", what) for name, what in FEATURES.items()]
    return f"## What it looks at\n\n{_table(('feature', 'meaning'), rows)}\n"


def _mean(chosen: npt.NDArray[np.bool_]) -> float:
    return float(np.mean(chosen)) if len(chosen) else float("nan")


def _ranged(value: float, ends: tuple[float, float]) -> str:
    return "–" if np.isnan(value) else f"{value:.3f} ({ends[0]:.3f}–{ends[1]:.3f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
