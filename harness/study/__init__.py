"""Injection–recovery studies: how complete, how pure, how accurate, and where sources are lost."""
