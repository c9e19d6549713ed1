"""Running a campaign: plan, workers, coordinator."""

from harness.execute.campaign import Campaign, Summary
from harness.execute.run import run_campaign, selection

__all__ = ["Campaign", "Summary", "run_campaign", "selection"]
