"""What detections are, on an image where everything is known."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.wcs import WCS

from harness.reliability.labels import label
from harness.study.tables import DETECTION
from pipeline.exposure import Difference, Exposure, GridPsf, VisitInfo
from pipeline.schema import INJECTION
from sims.artefacts import ARTEFACTS

SHAPE = (256, 256)
YEAR = 365.25


def exposure() -> Exposure:
    yy, xx = np.indices((25, 25)) - 12
    stamp = np.exp(-0.5 * (xx**2 + yy**2) / 1.8**2)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (150.0, 2.0), (128.0, 128.0)
    wcs.wcs.cd = np.array([[-1.0, 0.0], [0.0, 1.0]]) * 0.26 / 3600
    return Exposure(
        np.zeros(SHAPE, np.float32), np.full(SHAPE, 16.0, np.float32), np.zeros(SHAPE, np.uint32),
        VisitInfo(1, 1, "g", 86.0, 57070.0, camera="testcam"), wcs=wcs,
        psf=GridPsf((stamp / stamp.sum())[None, None], np.zeros(1), np.zeros(1)), unit="nJy",
    )  # fmt: skip


#         id, kind, x, y, flux in the template, flux now, proper motion in mas / yr
OBJECTS = [
    (1, "sn_ia", 60.0, 60.0, 0.0, 5000.0, 0.0),
    (2, "star", 120.0, 90.0, 1e5, 1e5, 0.0),
    (3, "rr_lyrae", 180.0, 60.0, 1e4, 2e3, 0.0),
    (4, "star", 60.0, 120.0, 1e6, 1e6, 100.0),
    (5, "agn", 120.0, 200.0, 1e4, 1e4 + 40.0, 0.0),  # by less than twice its noise
]
BODY = (200.0, 200.0)  # where an asteroid was in the template
INJECTED = (60.0, 180.0)


@pytest.fixture
def view(tmp_path):
    image = exposure()
    sky = {k: image.wcs.all_pix2world(x, y, 0) for k, _, x, y, *_ in OBJECTS}
    body = image.wcs.all_pix2world(*BODY, 0)
    rows = [
        {"truthId": k, "visit": v, "detector": 1, "flux": f, "ra": float(sky[k][0]),
         "dec": float(sky[k][1]), "midpointMjdTai": t}
        for k, _, _, _, before, now, _ in OBJECTS
        for v, f, t in ((1, now, 57070.0), (11, before, 57070.0 - YEAR))
    ]  # fmt: skip
    rows.append(
        {"truthId": 9, "visit": 11, "detector": 1, "flux": 500.0, "ra": float(body[0]),
         "dec": float(body[1]), "midpointMjdTai": 57070.0 - YEAR}
    )  # fmt: skip
    objects = [{"truthId": k, "kind": kind, "pmRa": pm, "pmDec": 0.0}
               for k, kind, *_, pm in [*OBJECTS, (9, "asteroid", 0.0)]]  # fmt: skip
    (tmp_path / "truth").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "truth" / "visits.parquet")
    pq.write_table(pa.Table.from_pylist(objects), tmp_path / "truth" / "objects.parquet")
    bits = np.zeros(SHAPE, np.uint32)
    bits[30, 200:206] = 1
    planes = {name: k for k, name in enumerate(ARTEFACTS)}
    return SimpleNamespace(
        truth={
            "truthId": np.array([o[0] for o in OBJECTS]), "kind": np.array([o[1] for o in OBJECTS]),
            "x": np.array([o[2] for o in OBJECTS]), "y": np.array([o[3] for o in OBJECTS]),
            "ra": np.array([sky[o[0]][0] for o in OBJECTS]),
            "dec": np.array([sky[o[0]][1] for o in OBJECTS]),
            "flux": np.array([o[5] for o in OBJECTS]),
            "trailLength": np.full(len(OBJECTS), np.nan),
            "trailAngle": np.full(len(OBJECTS), np.nan),
        },
        template_inputs=((11, 1, 1.0),), space=SimpleNamespace(root=tmp_path),
        camera=SimpleNamespace(pixel_scale=0.26), visit=1, number=1, excluded_bits=0,
        artefacts=SimpleNamespace(bits=bits, planes=planes),
        difference=Difference(image, image.image, image.variance, None),
    )  # fmt: skip


CASES = [  # x, y, sign, injection, label, kind
    (60.3, 60.2, 1, None, 1, "sn_ia"),
    (67.0, 60.0, 1, None, -1, "unclear"),  # near it, and not its own
    (60.0, 60.0, -1, None, -1, "unclear"),  # of the wrong sign
    (180.0, 60.4, -1, None, 1, "rr_lyrae"),  # it has faded
    (120.5, 90.0, 1, None, 0, "star"),  # a constant one
    (60.5, 120.0, 1, None, -1, "unclear"),  # it has moved by a tenth of an arcsecond
    (120.0, 200.0, 1, None, -1, "unclear"),  # it varies by less than can be detected
    (202.0, 31.0, 1, None, 0, "cosmic ray"),
    (20.0, 230.0, 1, None, 0, "noise"),
    (200.5, 200.0, -1, None, -1, "unclear"),  # the asteroid of the template
    (60.2, 180.0, 1, 7, 1, "injected transient"),
    (66.0, 180.0, 1, None, -1, "unclear"),  # beside what was painted
]


def test_every_detection_is_what_it_is(view):
    n = len(CASES)
    columns = {
        "x": [c[0] for c in CASES], "y": [c[1] for c in CASES], "snr": [8.0 * c[2] for c in CASES],
        "injectionId": [c[3] for c in CASES], "visit": [1] * n, "detector": [1] * n,
    }  # fmt: skip
    flags = {c.name: [False] * n for c in DETECTION.columns if c.dtype == "bool"}
    whole = {"realisation": [0] * n}
    detections = DETECTION.to_arrow(flags | whole | columns)
    ra, dec = view.difference.exposure.wcs.all_pix2world(*INJECTED, 0)
    injections = INJECTION.from_rows(
        [{"injectionId": 7, "studyId": "s", "visit": 1, "detector": 1, "seed": 1, "x": INJECTED[0],
          "y": INJECTED[1], "ra": float(ra), "dec": float(dec), "kind": "transient", "flux": 500.0,
          "trueSnr": 20.0, "placed": True}]
    )  # fmt: skip

    found = label(view, detections, injections)

    assert found["label"].tolist() == [c[4] for c in CASES]
    assert found["kind"].tolist() == [c[5] for c in CASES]
    assert found["trueSnr"][10] == 20.0
    assert found["trueSnr"][3] < -100.0
    assert np.isnan(found["trueSnr"][8])
