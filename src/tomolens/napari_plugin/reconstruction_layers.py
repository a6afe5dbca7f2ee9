"""A reconstruction as napari layers: the result as a scan like its input, and maps of what changed and how sure it is.

The result, the baseline and the reference are scans: they keep their `Volume` in ``layer.metadata["volume"]``, so that
every widget and writer takes them for one and their history travels with them. The maps are none; they keep theirs in
``layer.metadata["map"]``. Each of them has the `Kept` reconstruction in ``layer.metadata["kept"]``, the
`Reconstruction` itself in ``layer.metadata["reconstruction"]`` and what it shows in ``layer.metadata["part"]``.

They lie on the layer of the scan, moved and turned as that is, also where the slices are thinner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.reconstruction import GENERATIVE, Job
from tomolens.core.volume import Unit, Volume
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.lazy_arrays import Blended

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from tomolens.core.grid import Grid
    from tomolens.core.reconstruction import Reconstruction
    from tomolens.napari_plugin.kept_reconstruction import Kept

REFERENCES = {Job.DENOISING: "Input", Job.MRI: "Zero-filled", Job.SUPER_RESOLUTION: "Cubic spline"}
"""What a job's reference is called."""
LINKED = ("contrast_limits", "gamma")
"""What the scan, the result, the reference and the baseline share."""
_SHOWN_PERCENTILE = 99.5
_DIVERGING = ((0.25, 0.65, 1.0), (0.0, 0.0, 0.0), (1.0, 0.55, 0.1))
"""Less than the input is blue, more is orange, unchanged black: also for the colour-blind."""


class Part(StrEnum):
    """What a layer shows of a reconstruction."""

    RESULT = "result"
    REFERENCE = "reference"
    BASELINE = "baseline"
    DIFFERENCE = "difference"
    UNCERTAINTY = "uncertainty"


def made_layers(kept: Kept, scan: Image | None) -> list[layers.LayerData]:
    """The layers of a reconstruction, the undermost first; all but the result are hidden.

    Parameters
    ----------
    kept
        What was made.
    scan
        The layer of the scan that it was made of, where there is one that is still open.
    """
    shown = [_image(kept, part, volume, scan) for part, volume in _volumes(kept, scan).items()]
    maps = [_map(kept, part, scan) for part in (Part.DIFFERENCE, Part.UNCERTAINTY) if _numbers(kept, part) is not None]
    return [*shown, *maps]


def show_again(made: Iterable[Image], kept: Kept) -> None:
    """Show the same reconstruction at another strength in its layers."""
    for layer in made:
        part = layer.metadata["part"]
        volume = {Part.RESULT: kept.reconstruction.volume}.get(part)
        numbers = _numbers(kept, part)
        layer.metadata.update(kept=kept, reconstruction=kept.reconstruction)
        if volume is not None:
            layer.metadata["volume"] = volume
            layer.data = volume.canonical().voxels
        elif numbers is not None:
            layer.metadata["map"] = _map_volume(kept.reconstruction, part, numbers)
            layer.data = layer.metadata["map"].canonical().voxels


def preview(result: Image, kept: Kept, strength: float) -> None:
    """Show another strength at once, slice by slice; `show_again` makes it the layer's volume."""
    if not isinstance(result.data, Blended):
        made = kept.model.made
        result.data = Blended(*(layers.turned(part, made.grid) for part in (made.reference, made.image)))
    result.data.share = strength
    result.refresh()


def parts_of(open_layers: Iterable[Layer], origin: object, model: str) -> dict[Part, Image]:
    """The layers of what a model made of a scan's volume, or of a file of k-space; empty without."""
    made = (layer for layer in open_layers if is_part(layer))
    return {
        layer.metadata["part"]: layer
        for layer in made
        if layer.metadata["kept"].origin == origin and layer.metadata["kept"].card.name == model
    }


def is_part(layer: Layer) -> bool:
    """Whether a layer shows something of a reconstruction."""
    return "part" in layer.metadata


def is_map(layer: Layer) -> bool:
    """Whether a layer only looks like a scan: a map, or a picture composed of two."""
    return "map" in layer.metadata


def saved_volume(data: Any, metadata: Mapping[str, Any], name: str) -> Volume:
    """What an image layer is saved as: its scan, or the map that it shows; raises as `layers.volume_in`."""
    shown = metadata.get("map")
    return shown if isinstance(shown, Volume) else layers.volume_in(data, metadata, name)


def _volumes(kept: Kept, scan: Image | None) -> dict[Part, Volume]:
    """The images; the reference only where it is not the scan itself."""
    made = kept.reconstruction
    parts = {Part.REFERENCE: made.reference} if scan is None or made.job is not Job.DENOISING else {}
    beside = {} if made.baseline is None else {Part.BASELINE: made.baseline}
    return {**parts, **beside, Part.RESULT: made.volume}


def _image(kept: Kept, part: Part, volume: Volume, scan: Image | None) -> layers.LayerData:
    data, attributes, kind = layers.image(volume)
    look = {} if scan is None else {name: getattr(scan, name) for name in ("colormap", *LINKED, "interpolation2d")}
    place = {} if scan is None else _placed(volume.grid, scan)
    metadata = {**_metadata(kept, part), "volume": volume}
    changed = {"name": _name(kept, part), "visible": part is Part.RESULT, "metadata": metadata}
    return data, {**attributes, **look, **place, **changed}, kind


def _map(kept: Kept, part: Part, scan: Image | None) -> layers.LayerData:
    from napari.utils import Colormap

    numbers = np.asarray(_numbers(kept, part))
    volume = _map_volume(kept.reconstruction, part, numbers)
    data, attributes, kind = layers.image(volume)
    most = _most(numbers)
    diverging = Colormap(_DIVERGING, name="less black more")
    look = {
        "colormap": diverging if part is Part.DIFFERENCE else "inferno",
        "contrast_limits": (-most if part is Part.DIFFERENCE else 0.0, most),
        "name": f"{part.capitalize()} {_extent(kept.reconstruction, part, most)}, {kept.card.name}",
        "metadata": {**_metadata(kept, part), "map": volume},
        "visible": False,
    }
    place = {} if scan is None else _placed(volume.grid, scan)
    return data, {**attributes, **place, **look}, kind


def _metadata(kept: Kept, part: Part) -> dict[str, Any]:
    return {"kept": kept, "reconstruction": kept.reconstruction, "part": part}


def _numbers(kept: Kept, part: Part) -> NDArray[np.float32] | None:
    made = kept.reconstruction
    return made.difference if part is Part.DIFFERENCE else made.uncertainty if part is Part.UNCERTAINTY else None


def _map_volume(made: Reconstruction, part: Part, numbers: NDArray[np.float32]) -> Volume:
    meaning = {
        Part.DIFFERENCE: f"difference: result minus {REFERENCES[made.job].lower()}",
        Part.UNCERTAINTY: "uncertainty: one standard deviation of the result",
    }
    volume = replace(made.volume, voxels=numbers, padding=None)
    return volume.with_voxels(numbers, f"{meaning[part]}, in {made.volume.unit}")


def _most(numbers: NDArray[np.float32]) -> float:
    """The size of number that gets the full colour: 1, 2 or 5 times a power of ten, not below nearly all of them."""
    step = tuple(slice(None, None, max(1, n // 64)) for n in numbers.shape)
    least = float(np.percentile(np.abs(numbers[step]), _SHOWN_PERCENTILE))
    power = 10.0 ** np.floor(np.log10(least)) if least > 0 else 1.0
    return next((float(n * power) for n in (1, 2, 5) if n * power >= least), 10.0 * float(power))


def _extent(made: Reconstruction, part: Part, most: float) -> str:
    """What the full colour stands for: HU, or where there is no unit the share of the reference's range too."""
    most_said = f"{'±' if part is Part.DIFFERENCE else 'to '}{most:.3g} {made.volume.unit}"
    if made.volume.unit is Unit.HU:
        return most_said
    spread = float(np.ptp(made.reference.voxels)) or 1.0
    return f"{most_said} ({100 * most / spread:.3g} % of range)"


def _name(kept: Kept, part: Part) -> str:
    made, card = kept.reconstruction, kept.card
    warning = f" ({GENERATIVE})" if made.generative else ""
    names = {
        Part.RESULT: f"{card.name} of {kept.name}{warning}",
        Part.REFERENCE: f"{REFERENCES[made.job]} of {kept.name}",
        Part.BASELINE: f"{baseline_name(made)} of {kept.name}",
    }
    return names[part]


def baseline_name(made: Reconstruction) -> str:
    """The method's name, from the last line of its volume's history: ``JOB by NAME VERSION``."""
    words = made.baseline.history[-1].partition(" by ")[2].split() if made.baseline else []
    return words[0] if words else "Baseline"


def _placed(grid: Grid, scan: Image) -> dict[str, Any]:
    """Where a layer on a grid like the scan's lies, whatever was done to the scan's layer."""
    own, theirs = layers.canonical(grid), layers.canonical(scan.metadata["volume"].grid)
    ratio = np.asarray(own.spacing_mm) / theirs.spacing_mm
    first = scan.data_to_world(theirs.to_kji(own.to_mm((0, 0, 0))))
    return {
        "scale": np.asarray(scan.scale) * ratio,
        "rotate": scan.rotate,
        "shear": scan.shear,
        "affine": scan.affine.affine_matrix,
        "translate": scan.affine.inverse(first),
    }
