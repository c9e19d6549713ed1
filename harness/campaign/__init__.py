"""The campaign: what is recorded, what is planned, and the fold over the list of tasks."""
