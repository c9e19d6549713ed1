"""All statistics of a simulated workspace: its frames, its camera, its stars in undisturbed air."""

from __future__ import annotations

import json
import math
from pathlib import Path

from pipeline.camera import Camera
from sims.artefacts import FULL_SIZE
from sims.profiles import profiles
from sims.statistics.channels import laboratory
from sims.statistics.oracle import rendering
from sims.statistics.rows import Statistics
from sims.statistics.stars import astrometry
from sims.statistics.workspace import campaign

__all__ = ["page"]


def page(root: Path, *, most: int = 24) -> Statistics:
    """Measure a simulated workspace in every respect.

    Parameters
    ----------
    root : path-like
        A workspace written by `sims.simulate`.
    most : int
        Frames whose pixels are looked at.

    Returns
    -------
    Statistics
        What `campaign` finds; the laboratory's measurements of the first and the last detector;
        astrometry of undisturbed frames of these two, as many as two full-size CCDs have pixels;
        sources of all classes beside GalSim's, in the PSF of the first visit.
    """
    plan = json.loads((Path(root) / "raw" / "plan.json").read_text())
    profile, seed = profiles()[plan["profile"]], int(plan["seed"])
    camera = Camera.load(profile.camera)
    ends = sorted({profile.detectors[0], profile.detectors[-1]})
    units = [(v.number, number) for v in profile.visits[::-1] for number in ends]
    enough = math.ceil(2 * FULL_SIZE / math.prod(camera.detector(ends[0]).shape))
    return Statistics.join(
        [
            campaign(root, most=most),
            *(laboratory(camera, number, seed=seed) for number in ends),
            astrometry(profile, seed, units[:enough]),
            rendering(profile.conditions(seed, profile.visits[0]).psf),
        ]
    )
