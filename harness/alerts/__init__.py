"""Alerts read, drawn, compared and published."""
