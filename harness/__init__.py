"""Campaigns: run them, judge them, report on them."""
