"""Campaigns that are larger than the disk: simulated, processed, judged and removed in slices."""

from harness.slices.run import process_slice
from harness.slices.slices import Slice, plan_slices
from harness.slices.summary import summarise

__all__ = ["Slice", "plan_slices", "process_slice", "summarise"]
