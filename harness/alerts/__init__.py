"""Alerts for people and brokers: read, drawn, compared, published."""
