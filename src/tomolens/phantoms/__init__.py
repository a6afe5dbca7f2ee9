"""Anatomy that the project generates itself, with known truth."""
