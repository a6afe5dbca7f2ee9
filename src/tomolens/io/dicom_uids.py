"""UIDs that follow from what they name: the same things have the same UID, wherever and whenever it is made."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.UUID("6f1f4d0c-5a5e-4f0e-9d3c-0b1f1c7c7a11")


def named_uid(*sources: object) -> str:
    """Derive a UID of the 2.25 root (PS3.5 B.2) from ``sources`` and nothing else."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, sources))).int}"
