"""Acquisitions as scanners make them, with markers that show every flip."""

from __future__ import annotations

import numpy as np

from tomolens.core.grid import Grid
from tomolens.phantoms.markers import marked_volume

S, I, A, P, L, R = (0, 0, 1), (0, 0, -1), (0, -1, 0), (0, 1, 0), (1, 0, 0), (-1, 0, 0)  # noqa: E741
TILT = np.radians(18.5)
TILTED = (0, -np.sin(TILT), np.cos(TILT))

ACQUIRED = {
    "axial from the feet": (S, P, L),
    "axial from the head": (I, P, L),
    "axial, patient prone": (S, A, R),
    "axial, rows and columns swapped": (I, L, P),
    "coronal from the front": (P, I, L),
    "coronal from the back": (A, I, R),
    "sagittal from the left": (R, I, P),
    "sagittal from the right": (L, I, A),
    "axial, tilted gantry": (TILTED, P, L),
}
"""The sides that slices, rows and columns grow towards."""

SHAPE, SPACING_MM, ORIGIN_LPS_MM = (26, 36, 32), (2.0, 1.1, 1.3), (12.0, -40.0, 300.0)


def acquired(name: str) -> Grid:
    return Grid.from_axes(SHAPE, SPACING_MM, ORIGIN_LPS_MM, ACQUIRED[name])


def scan(name: str = "axial from the feet"):
    return marked_volume(acquired(name))
