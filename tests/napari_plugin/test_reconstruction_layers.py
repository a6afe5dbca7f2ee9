"""The layers of a reconstruction lie on the anatomy, whatever grid it has and whatever was done to its scan's layer."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Layer

from tests.napari_plugin.reconstructing import ThinMarkers, ZeroFilled, kspace, thin_grid
from tests.napari_plugin.scans import ACQUIRED, scan
from tomolens.core.progress import silent
from tomolens.core.reconstruction import ReconstructOptions
from tomolens.core.reconstruction_picture import difference_scale, uncertainty_scale
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.kept_reconstruction import run
from tomolens.napari_plugin.reconstruction_layers import Part, made_layers
from tomolens.phantoms.markers import MARKER_HU, marked_volume, marker_centers
from tomolens.testing import FakeReconstructor

PLAIN = ReconstructOptions()


def made_of(volume, model, options=PLAIN, baseline=None):
    return run(volume, model, options, baseline, volume, "scan", silent)


def created(kept, image):
    made = [Layer.create(*data) for data in made_layers(kept, image)]
    return {layer.metadata["part"]: layer for layer in made}


@pytest.fixture(params=[False, True], ids=["as opened", "moved and turned"])
def moved(request):
    return {"translate": (5.0, 7.0, -3.0), "rotate": (0, 0, 30), "shear": (0.1, 0, 0)} if request.param else {}


def image_of(volume, moved):
    image = Layer.create(*layers.image(volume))
    for name, value in moved.items():
        setattr(image, name, value)
    return image


@pytest.mark.parametrize("name", ACQUIRED)
def test_every_part_lies_voxel_on_voxel_however_the_scan_was_acquired(name, moved):
    volume = scan(name)
    image = image_of(volume, moved)
    made = created(made_of(volume, FakeReconstructor(), baseline=FakeReconstructor()), image)
    assert set(made) == {Part.RESULT, Part.BASELINE, Part.DIFFERENCE, Part.UNCERTAINTY}
    for layer in made.values():
        assert layer.data.shape == image.data.shape
        for index in ((0, 0, 0), (3, 20, 11)):
            np.testing.assert_allclose(layer.data_to_world(index), image.data_to_world(index))
    for side, center in marker_centers(volume.grid).items():
        kji = tuple(np.round(layers.canonical(volume.grid).to_kji(center)).astype(int))
        assert made[Part.RESULT].data[kji] == made[Part.BASELINE].data[kji] == MARKER_HU[side]


@pytest.mark.parametrize("name", ACQUIRED)
def test_thin_slices_lie_at_their_true_mm(name, moved):
    grid = scan(name).grid
    thick = marked_volume(grid.respaced((4.0, *grid.spacing_mm[1:])))
    thin = thin_grid(thick.grid, 3)
    image = image_of(thick, moved)
    made = created(made_of(thick, ThinMarkers(), ReconstructOptions(factor=3)), image)
    assert set(made) == {Part.REFERENCE, Part.RESULT, Part.DIFFERENCE}
    shown, under = layers.canonical(thin), layers.canonical(thick.grid)
    for center in marker_centers(thick.grid).values():
        for layer in made.values():
            np.testing.assert_allclose(
                layer.data_to_world(shown.to_kji(center)), image.data_to_world(under.to_kji(center)), atol=1e-6
            )
    for side, hu in {"L": 700, "P": 400, "S": 300}.items():
        index = np.round(shown.to_kji(marker_centers(thin)[side])).astype(int)
        assert made[Part.RESULT].data[tuple(index)] == hu


def test_without_its_scan_a_result_lies_where_its_own_grid_says_and_the_reference_stands_in():
    volume = scan("sagittal from the left")
    made = created(made_of(volume, FakeReconstructor()), None)
    image = Layer.create(*layers.image(volume))
    np.testing.assert_allclose(made[Part.RESULT].data_to_world((3, 4, 5)), image.data_to_world((3, 4, 5)))
    np.testing.assert_array_equal(made[Part.REFERENCE].data, image.data)


def test_what_k_space_gives_is_named_after_the_file_and_its_difference_says_the_share_of_the_range():
    source = kspace()
    made = created(run(source, ZeroFilled(), ReconstructOptions(), None, source, "brain.h5", silent), None)
    assert made[Part.REFERENCE].name == "Zero-filled of brain.h5"
    scale = difference_scale(made[Part.RESULT].metadata["reconstruction"])
    full = scale.limit / scale.factor
    assert scale.unit == "% of range"
    assert made[Part.DIFFERENCE].name == f"Difference ±{full:.3g} a.u. = {scale.limit:g} % of range, fake-fill"
    np.testing.assert_allclose(made[Part.DIFFERENCE].contrast_limits, (-full, full))


def test_the_colours_of_the_maps_mean_what_they_mean_on_the_page():
    made = created(made_of(scan(), FakeReconstructor()), None)
    reconstruction = made[Part.RESULT].metadata["reconstruction"]
    scales = {
        Part.DIFFERENCE: difference_scale(reconstruction),
        Part.UNCERTAINTY: uncertainty_scale(reconstruction, reconstruction.uncertainty),
    }
    for part, scale in scales.items():
        low, high = made[part].contrast_limits
        assert (low, high) == (-scale.limit if scale.symmetric else 0, scale.limit)
        assert f"{scale.limit:g} HU" in made[part].name
        numbers = np.linspace(low, high, 9)
        shown = made[part].colormap.map((numbers - low) / (high - low))[:, :3]
        np.testing.assert_allclose(shown * 255, scale.coloured(numbers), atol=2)


def test_a_difference_is_black_where_nothing_changed_and_has_the_same_strength_of_colour_up_and_down():
    difference = created(made_of(scan(), FakeReconstructor()), None)[Part.DIFFERENCE]
    low, high = difference.contrast_limits
    assert low == -high
    np.testing.assert_allclose(difference.colormap.map(0.5)[..., :3], 0, atol=1e-6)
    assert difference.colormap.map(0.0)[..., 2] > 0.9
    assert difference.colormap.map(1.0)[..., 0] > 0.9
