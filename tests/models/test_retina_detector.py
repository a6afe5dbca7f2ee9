from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from torch import nn

from tests.models.zoo_bundles import write_zoo_bundle
from tomolens.core.errors import Cancelled, ModelError, OutOfMemory
from tomolens.core.grid import Grid
from tomolens.core.volume import Volume
from tomolens.models.detector import load_detector
from tomolens.models.import_bundle import import_bundle
from tomolens.models.inference import Backend
from tomolens.models.recipe import Boxes, Recipe, Windows
from tomolens.models.retina_detector import BoxSearch, RetinaDetector

CPU = Backend(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """An imported detector, and the authors' network."""
    folder = tmp_path_factory.mktemp("retina")
    network = write_zoo_bundle(folder / "lung_nodule_ct_detection", "lung_nodule_ct_detection")
    (folder / "ours").mkdir()
    import_bundle(folder / "lung_nodule_ct_detection", folder / "ours")
    return folder / "ours", network


class OneBox(nn.Module):
    """A detector's network that is sure of one place and of nothing else: what it should find is known."""

    spatial_dims, num_classes, size_divisible, num_anchors = 3, 1, [4, 4, 4], 1
    cls_key, box_reg_key = "classification", "box_regression"

    def __init__(self, level: float = 100.0) -> None:
        super().__init__()
        self.level = level

    def forward(self, image):
        dense = nn.functional.avg_pool3d((image > self.level).float(), 4)
        nothing = torch.zeros(len(image), 6, *dense.shape[2:])
        return {
            self.cls_key: [torch.where(dense >= dense.max().clamp(min=0.5), 6.0, -9.0)],
            self.box_reg_key: [nothing],
        }


BOXES = Boxes((1,), ((12, 12, 12),), 0.02, 1000, 0.22, 300)


def chest(grid: Grid, nodule_mm: tuple[float, float, float]) -> Volume:
    """Two textured lungs in a body, and one dense ball in the left one."""
    places = grid.to_mm(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))
    voxels = np.full(grid.shape, -1000.0)
    voxels[np.linalg.norm(places[..., :2] / (150, 105), axis=-1) < 1] = 40
    texture = np.random.default_rng(0).normal(0, 220, grid.shape)
    for side in (-1, 1):
        lung = np.linalg.norm((places - (side * 70, 0, 0)) / (52, 75, 95), axis=-1) < 1
        voxels[lung] = (-780 + texture)[lung].clip(-1000, -300)
    voxels[np.linalg.norm(places - nodule_mm, axis=-1) < 9] = 120
    return Volume(voxels.astype(np.int16), grid)


GRIDS = {
    "axial": Grid.from_axes((56, 80, 108), (4.0, 3.0, 3.0), (-160, -118, -110)),
    "turned": Grid.from_axes((56, 80, 108), (4.0, 3.0, 3.0), (-160, -118, -110))
    .flipped(2)
    .flipped(0)
    .permuted((1, 0, 2)),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_box_becomes_a_finding_in_its_own_place_in_the_patient(bundle, grid):
    card = load_detector(bundle[0], device="cpu").card
    steps = [{"do": "orient", "axcodes": "RAS"}, {"do": "space", "pixdim": [2.0, 2.0, 2.5]}]
    windows = {"roi_size": [64, 64, 64], "overlap": 0.25}
    boxes = {"feature_map_scales": [1], "base_anchor_shapes": [[8, 8, 8]], "nms_thresh": 0.1}

    model = RetinaDetector(
        replace(card, recipe={"steps": steps, "windows": windows, "boxes": boxes}), OneBox(80.0), "", CPU
    )
    nodule = (62.0, 12.0, -20.0)
    findings, run = model.detect(chest(grid, nodule))
    nearest = min(np.linalg.norm(np.subtract(finding.center_lps_mm, nodule)) for finding in findings)
    assert nearest < 6
    assert findings[0].diameter_mm == pytest.approx((16 + 16 + 20) / 3)
    assert [finding.score for finding in findings] == sorted((f.score for f in findings), reverse=True)
    assert run.options == {"floor": 0.05}
    assert any("not validated" in note for note in run.notes)


def test_our_network_is_the_one_of_the_bundle_and_finds_monais_boxes(bundle):
    folder, network = bundle
    model = load_detector(folder, device="cpu")
    recipe = Recipe.of(model.card)
    image = torch.rand(1, 48, 48, 16, generator=torch.Generator().manual_seed(0))
    boxes, scores = BoxSearch(model._network, recipe.boxes, recipe.windows, CPU, lambda step: None).over(image)
    anchors = AnchorGeneratorWithAnchorShape((1, 2, 4), ((6, 8, 4), (8, 6, 5), (10, 10, 6)))
    theirs = RetinaNetDetector(network, anchors).eval()
    theirs.set_box_selector_parameters(0.02, 1000, 0.22, 300)
    with torch.no_grad():
        (truth,) = theirs(image[None])
    order = np.argsort(-truth["labels_scores"].numpy(), kind="stable")
    assert np.allclose(scores, truth["labels_scores"].numpy()[order], atol=1e-4)
    assert np.allclose(boxes, truth["boxes"].numpy()[order], atol=1e-2)


def test_a_large_image_is_searched_in_windows_and_can_be_stopped():
    image = torch.zeros(1, 48, 48, 48)
    image[0, 20:26, 30:36, 8:14] = 1
    steps = []
    search = BoxSearch(OneBox(0.5), BOXES, Windows((32, 32, 32), 1, 0.25), CPU, steps.append)
    boxes, _ = search.over(image)
    assert np.abs((boxes[0, :3] + boxes[0, 3:]) / 2 - (23, 33, 11)).max() < 4
    assert max(step.done for step in steps) == 8

    def stop(step):
        if step.done == 3:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        BoxSearch(OneBox(0.5), BOXES, Windows((32, 32, 32)), CPU, stop).over(image)


def test_too_little_memory_takes_smaller_windows_and_then_gives_up_with_the_size():
    class Full(OneBox):
        def forward(self, image):
            if image.shape[2] * image.shape[3] * image.shape[4] > self.most:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(image)

    network = Full(0.5)
    network.most = 64**3
    search = BoxSearch(network, BOXES, Windows((128, 64, 64)), CPU, lambda step: None)
    search.over(torch.zeros(1, 128, 64, 64))
    assert search.notes == ["Out of memory on cpu; trying windows of 64 x 64 x 64."]
    network.most = 10
    with pytest.raises(OutOfMemory, match="smallest window"):
        BoxSearch(network, BOXES, Windows((64, 64, 64)), CPU, lambda step: None).over(torch.zeros(1, 64, 64, 64))


def test_a_search_says_why_its_device_was_chosen_where_that_was_left_to_the_program(bundle):
    card, told = load_detector(bundle[0], device="cpu").card, []
    boxes = {"feature_map_scales": [1], "base_anchor_shapes": [[8, 8, 8]]}
    recipe = {"steps": [{"do": "space", "pixdim": [4.0, 4.0, 4.0]}], "windows": {"roi_size": [64] * 3}, "boxes": boxes}
    backend = replace(CPU, reason="The CPU runs it, for a reason.")
    model = RetinaDetector(replace(card, recipe=recipe), OneBox(80.0), "", backend)
    _, run = model.detect(chest(GRIDS["axial"], (62.0, 12.0, -20.0)), told.append)
    assert run.notes[0] == backend.reason
    assert [step.stage for step in told if step.remark] == [backend.reason]


def test_an_imported_detector_has_no_second_stage(bundle):
    with pytest.raises(ModelError, match="without a second stage"):
        load_detector(bundle[0], device="cpu", second_stage="lung-nodule-classifier")
