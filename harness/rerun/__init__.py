"""Making again what a campaign made: a product, an alert from raw frames, or all of it."""

from harness.rerun.alert import rerun_alert
from harness.rerun.campaign import rerun_campaign
from harness.rerun.product import RerunResult, compare_fits, rerun_product

__all__ = ["RerunResult", "compare_fits", "rerun_alert", "rerun_campaign", "rerun_product"]
