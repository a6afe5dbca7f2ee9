"""A reconstruction as napari layers: the result as a scan like its input, and maps of what changed and how sure it is.

The result, the baseline and the reference are scans: they keep their `Volume` in ``layer.metadata["volume"]``, so that
every widget and writer takes them for one and their history travels with them. The maps are none; they keep theirs in
``layer.metadata["map"]``. Each of them has the `Kept` reconstruction in ``layer.metadata["kept"]``, the
`Reconstruction` itself in ``layer.metadata["reconstruction"]`` and what it shows in ``layer.metadata["part"]``. What
napari copies or makes of a layer inherits all that; the ID in ``layer.metadata["layer"]`` is the layer's own alone.

They lie on the layer of the scan, moved and turned as that is, also where the slices are thinner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.reconstruction import GENERATIVE, Job
from tomolens.core.reconstruction_picture import difference_scale, uncertainty_scale
from tomolens.core.volume import Unit, Volume
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.lazy_arrays import Blended

if TYPE_CHECKING:
    from napari.layers import Image, Layer

    from tomolens.core.grid import Grid
    from tomolens.core.reconstruction import Reconstruction
    from tomolens.core.reconstruction_picture import Scale
    from tomolens.napari_plugin.kept_reconstruction import Kept

REFERENCES = {Job.DENOISING: "Input", Job.MRI: "Zero-filled", Job.SUPER_RESOLUTION: "Cubic spline"}
"""What a job's reference is called."""
LINKED = ("contrast_limits", "gamma")
"""What the scan, the result, the reference and the baseline share."""


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
    maps = [_map(kept, Part(name), volume, scan) for name, volume in kept.reconstruction.maps.items()]
    return [*shown, *maps]


def show_again(made: Iterable[Image], kept: Kept) -> None:
    """Show the same reconstruction at another strength in its layers."""
    changed = {str(Part.RESULT): kept.reconstruction.volume, **kept.reconstruction.maps}
    for layer in made:
        layer.metadata.update(kept=kept, reconstruction=kept.reconstruction)
        volume = changed.get(layer.metadata["part"])
        if volume is not None:
            layer.metadata["map" if is_map(layer) else "volume"] = volume
            layer.data = volume.canonical().voxels


def preview(result: Image, kept: Kept, strength: float) -> None:
    """Show another strength at once, slice by slice; `show_again` makes it the layer's volume."""
    if not isinstance(result.data, Blended):
        made = kept.model.made
        result.data = Blended(*(layers.turned(part, made.grid) for part in (made.reference, made.image)))
    result.data.share = strength
    result.refresh()


def parts_of(open_layers: Iterable[Layer], origin: object, model: str) -> dict[Part, Image]:
    """The layers of what a model made of a scan's volume, or of a file of k-space, without copies; empty without."""
    made = (layer for layer in open_layers if layer.metadata.get("layer") == layer.unique_id)
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


def _map(kept: Kept, part: Part, volume: Volume, scan: Image | None) -> layers.LayerData:
    from napari.utils import Colormap

    made = kept.reconstruction
    scale = difference_scale(made) if part is Part.DIFFERENCE else uncertainty_scale(made, volume.voxels)
    data, attributes, kind = layers.image(volume)
    most = scale.limit / scale.factor
    look = {
        "colormap": Colormap(np.array(scale.colours) / 255, name=str(part)),
        "contrast_limits": (-most if scale.symmetric else 0.0, most),
        "name": f"{part.capitalize()} {_extent(scale, volume.unit)}, {kept.card.name}",
        "metadata": {**_metadata(kept, part), "map": volume},
        "visible": False,
    }
    place = {} if scan is None else _placed(volume.grid, scan)
    return data, {**attributes, **place, **look}, kind


def _metadata(kept: Kept, part: Part) -> dict[str, Any]:
    return {"kept": kept, "reconstruction": kept.reconstruction, "part": part}


def _extent(scale: Scale, unit: Unit) -> str:
    """What the full colour stands for: HU, or what the bar beside it says and the share of the reference's range."""
    most = scale.limit / scale.factor
    said = f"{'±' if scale.symmetric else 'to '}{f'{most:.0f}' if most >= 100 else f'{most:.3g}'} {unit}"
    return said if unit is Unit.HU else f"{said} = {scale.limit:g} {scale.unit}"


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
