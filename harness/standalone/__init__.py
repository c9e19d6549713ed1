"""Two images from anywhere, made into exposures that the stages understand."""

from harness.standalone.detection import detect
from harness.standalone.pair import Pair, Planes, load_pair
from harness.standalone.provenance import RECIPE, make, recreate
from harness.standalone.registration import misregistration
from harness.standalone.report import summary_lines, verdict
from harness.standalone.write import write_psf_grid

__all__ = [
    "RECIPE",
    "Pair",
    "Planes",
    "detect",
    "load_pair",
    "make",
    "misregistration",
    "recreate",
    "summary_lines",
    "verdict",
    "write_psf_grid",
]
