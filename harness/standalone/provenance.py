"""Where a stand-alone difference came from, and how to make it again."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.standalone import detection
from harness.standalone.estimate import scaled_psf
from harness.standalone.pair import Pair, load_pair
from harness.system.hashes import combine, file_hash
from harness.system.software import software_version
from pipeline import subtract
from pipeline.config import config_hash
from pipeline.errors import FileFormatError, InputError, PsfError, SubtractionError
from pipeline.exposure import Difference
from pipeline.io.planes import Planes

__all__ = ["RECIPE", "make", "recreate"]

_NEARLY_ALL = 0.98
_NOTABLE, _LEAST, _ROUNDS = 0.04, 0.01, 2
"""Correction of an estimated variance that is worth another subtraction, the least, how often."""

RECIPE = "nightjar subtract"
"""Value of the card RECIPE of products of the stand-alone subtraction."""


def make(
    pair: Pair, config: subtract.Config, *, registered: bool, detect: bool = False
) -> tuple[Pair, Difference]:
    """Subtract, and attach the provenance cards.

    Parameters
    ----------
    pair : Pair
        The images.
    config : pipeline.subtract.Config
        How.
    registered : bool
        The option of `load_pair`, to be recorded.
    detect : bool
        Whether `harness.standalone.detect` is going to follow, to be recorded.

    Returns
    -------
    pair : Pair
        The images as they were subtracted in the end: with better estimates of what is missing.
    difference : Difference
        With cards from which `recreate` can make it again.
    """
    modelled = pair.template.psf is not None
    pair, difference = _with_sky_noise(*_subtract(pair, config), config)
    pair, difference = _with_total_flux(pair, difference)
    hashes = [[file_hash(path) for path in files] for files in pair.files]
    names = [str(path.resolve()) for files in pair.files for path in files]
    options = {
        "science": _absolute(pair.planes[0]),
        "template": _absolute(pair.planes[1]),
        "registered": registered,
        "template_psf": modelled,
        "detect": detect,
        "config": config.model_dump(mode="json"),
        "hashes": dict(zip(names, itertools.chain(*hashes), strict=True)),
    }
    cards: dict[str, str | int | float | bool] = {
        "SCIID": pair.planes[0].path.name,
        "SCIHASH": combine(hashes[0]),
        "TMPLID": pair.planes[1].path.name,
        "TMPLHASH": combine(hashes[1]),
        **_inputs(pair),
        "KRNLHDU": "KERNEL",
        "STAGEVER": subtract.VERSION,
        "CONFHASH": config_hash(config),
        "SOFTVER": software_version(),
        "RECIPE": RECIPE,
        "OPTIONS": json.dumps(options, sort_keys=True),
    }
    return pair, replace(difference, exposure=difference.exposure.replace(provenance=cards))


def recreate(difference: Difference) -> Difference:
    """Make a stand-alone difference again from its own provenance.

    Parameters
    ----------
    difference : Difference
        As read from its file.

    Returns
    -------
    Difference
        The same, pixel by pixel, if the software is the same.

    Raises
    ------
    FileFormatError
        If it was not made by the stand-alone subtraction.
    InputError
        If an input is gone or has changed; the message names it.
    """
    cards = difference.exposure.provenance
    if cards.get("RECIPE") != RECIPE:
        raise FileFormatError("not made by nightjar subtract", key="RECIPE", expected=RECIPE)
    options = json.loads(str(cards["OPTIONS"]))
    for name, known in options["hashes"].items():
        path = Path(name)
        if not path.is_file():
            raise InputError("an input of this product is gone", path=path)
        if file_hash(path) != known:
            raise InputError("an input of this product has changed since", path=path)
    registered = bool(options["registered"])
    pair = load_pair(
        _planes(options["science"]), _planes(options["template"]), registered=registered
    )
    if options.get("template_psf"):
        pair = pair.with_template_psf()
    config = subtract.Config.model_validate(options["config"])
    detected = bool(options.get("detect"))
    pair, made = make(pair, config, registered=registered, detect=detected)
    return detection.detect(pair, made)[0] if detected else made


def _subtract(pair: Pair, config: subtract.Config) -> tuple[Pair, Difference]:
    """Subtract; the template's PSF is modelled only if there is no good kernel without it."""
    try:
        made = subtract.run(pair.science, pair.template, config)
    except SubtractionError as err:
        if pair.template.psf is not None:
            raise
        try:
            pair = pair.with_template_psf()
        except PsfError:
            raise err from None
        return pair, subtract.run(pair.science, pair.template, config)
    if pair.template.psf is None and subtract.wants_template_psf(made):
        with suppress(PsfError):
            pair = pair.with_template_psf()
            made = subtract.run(pair.science, pair.template, config)
    return pair, made


def _with_sky_noise(
    pair: Pair, difference: Difference, config: subtract.Config
) -> tuple[Pair, Difference]:
    """Subtract again with the sky noise that the difference shows, where it was estimated."""
    total = 1.0
    for _ in range(_ROUNDS if any(pair.estimated) else 0):
        factor = _sky_variance(pair, difference)
        if abs(factor - 1.0) < _NOTABLE:
            break
        total *= factor
        pair, difference = _subtract(pair.with_sky_variance(factor), config)
    if total != 1.0:
        note = f"estimated sky noise corrected by the difference, times {total**0.5:.3f}"
        pair = replace(pair, notes=(*pair.notes, note))
    return pair, difference


def _with_total_flux(pair: Pair, difference: Difference) -> tuple[Pair, Difference]:
    """Normalise the PSFs to the whole light of a star, so that fluxes are total at any seeing."""
    first, second = pair.enclosed
    notes = [*pair.notes]
    if first < _NEARLY_ALL:
        notes.append(f"{first:.1%} of a star's light within 12 pixels; PSF fluxes are total")
    made = difference.exposure
    difference = replace(difference, exposure=made.replace(psf=scaled_psf(made.psf, first)))
    pair = replace(
        pair,
        science=pair.science.replace(psf=scaled_psf(pair.science.psf, first)),
        template=pair.template.replace(psf=scaled_psf(pair.template.psf, second)),
        notes=tuple(notes),
    )
    return pair, difference


def _sky_variance(pair: Pair, difference: Difference) -> float:
    """Variance of the sky that explains the difference, over what was estimated.

    A field so crowded that no pixel shows the sky alone looks noisier than it is.  In the
    difference the stars are gone, and what is left where nothing has changed is the noise.
    """
    measured = difference.metrics["pixelStd"] ** 2
    if not np.isfinite(measured):
        return 1.0
    ratio = difference.metrics["kernelSum"] ** 2
    share = 1.0 / ratio if difference.metrics["convolvedScience"] else ratio
    thin = [e.variance[::7, ::7] for e in (pair.science, pair.template)]
    parts = [w * float(np.median(v[v > 0])) for w, v in zip((1.0, share), thin, strict=True)]
    known = sum(p for p, new in zip(parts, pair.estimated, strict=True) if not new)
    total = sum(parts)
    return float(max((measured * total - known) / (total - known), _LEAST))


def _inputs(pair: Pair) -> dict[str, str | int | float | bool]:
    """Cards about the exposures in the template, as far as they are recorded."""
    found = pair.template.provenance
    kept = {k: v for k, v in found.items() if k == "NTMPLIN" or k.startswith("TMPLIN")}
    return {"NTMPLIN": 0, **kept}


def _absolute(planes: Planes) -> dict[str, Any]:
    values = asdict(planes)
    return {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in values.items()}


def _planes(values: dict[str, Any]) -> Planes:
    names = ("path", "variance", "mask", "weight", "psf")
    paths = {k: Path(values[k]) if values.get(k) is not None else None for k in names}
    return Planes(**{**values, **paths})
