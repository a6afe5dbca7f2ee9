"""What can go wrong, as one tree.

::

    TomolensError
    ├── GeometryError      (ValueError)    slices or an affine that cannot be one regular grid
    │   └── MissingSliceError
    ├── ReadError          (OSError)       a file that cannot be read, or is not what it says
    ├── AmbiguousSource    (ValueError)    several series where one is needed
    ├── FindingError       (ValueError)    a finding without a place, a size or a score
    ├── SegmentationError  (ValueError)    labels that do not lie on their grid, or that have no name
    ├── ContractError      (ValueError)    a volume that a model was not made for
    ├── ModelError         (ValueError)    a model folder that is incomplete, altered or unknown
    ├── OptionError        (ValueError)    a wish that cannot be met
    ├── OutputError        (OSError)       a result that cannot be written
    ├── OutOfMemory        (MemoryError)   the smallest window does not fit either
    └── Cancelled          (Exception)     the user stopped the work; nothing is wrong

Each message says what was wrong (with the value), what is accepted, and where (series or file).
"""

from __future__ import annotations


class TomolensError(Exception):
    """Anything that Tomolens refuses or cannot do."""


class GeometryError(TomolensError, ValueError):
    """Slices or an affine that cannot be one regular voxel grid."""


class MissingSliceError(GeometryError):
    """The distances between slices are unequal: at least one slice is missing."""


class ReadError(TomolensError, OSError):
    """A file that cannot be read, or is not what it says it is."""


class AmbiguousSource(TomolensError, ValueError):
    """Several series stand where one is needed."""


class FindingError(TomolensError, ValueError):
    """A finding whose place, size or score is not a number that means something."""


class SegmentationError(TomolensError, ValueError):
    """Labels that do not lie on their grid, or that have no name."""


class ContractError(TomolensError, ValueError):
    """A volume that a model was not made for."""


class ModelError(TomolensError, ValueError):
    """A model folder that is incomplete, altered or unknown."""


class OptionError(TomolensError, ValueError):
    """An option outside what is accepted."""


class OutputError(TomolensError, OSError):
    """A result that cannot be written."""


class OutOfMemory(TomolensError, MemoryError):
    """Even the smallest window does not fit into memory."""


class Cancelled(TomolensError):
    """The user stopped the work. Raised by a progress callable, passed through by everything else."""
