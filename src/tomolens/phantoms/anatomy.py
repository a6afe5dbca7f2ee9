"""The painting of one patient, from the outside in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tomolens.phantoms import thorax as t
from tomolens.phantoms.bones import skeleton_of, vertebral_bodies
from tomolens.phantoms.scanner import table_image
from tomolens.phantoms.shapes import common, ellipsoid, joined, waves
from tomolens.phantoms.texture import Grain
from tomolens.phantoms.tubes import Tubes, draw
from tomolens.phantoms.vessels import LungTrees, grow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.phantoms.build import Build
    from tomolens.phantoms.canvas import Canvas

    Image = NDArray[np.float32]

MUSCLE_HU = 55.0
FAT_HU = -105.0
BLOOD_HU = 42.0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The painted image in HU and the shapes that it was painted from."""

    image: Image
    thorax: t.Thorax
    trees: LungTrees


def anatomy_of(build: Build, canvas: Canvas) -> Anatomy:
    """Paint one patient on the table, without noise."""
    thorax = t.thorax_of(build, canvas)
    trees = grow(build, thorax, canvas)
    rng = np.random.default_rng([build.seed, 6])
    back = float(build.to_patient((0, t.BODY_BACK[1][1], 0))[1]) + build.fat_mm
    image = np.repeat(table_image(canvas, back)[None], canvas.grid.shape[0], axis=0)
    _paint_wall(build, canvas, thorax, image, rng)
    _paint_abdomen(build, canvas, thorax, image, rng)
    _paint_mediastinum(build, canvas, thorax, image, rng)
    _paint_lungs(build, canvas, thorax, image, rng)
    _paint_trees(build, canvas, thorax, trees, image)
    _paint_bones(build, canvas, image)
    return Anatomy(image, thorax, trees)


def _paint_wall(build: Build, canvas: Canvas, thorax: t.Thorax, image: Image, rng: np.random.Generator) -> None:
    """Skin, fat, muscle, and the fat inside the chest."""
    fat = Grain(canvas, 5.0, 7.0, rng)
    canvas.paint(image, thorax.body, 20.0)
    canvas.paint(image, thorax.body + np.float32(2.0), FAT_HU, fat)
    if build.female:
        gland = Grain(canvas, 9.0, 60.0, rng)
        for side in (-1, 1):
            inside = ellipsoid(thorax.points, (side * 78, -112, 30), (34, 13 + 0.6 * build.fat_mm, 32))
            canvas.paint(image, common(inside, thorax.body + np.float32(7)), -70.0, gland)
    canvas.paint(image, thorax.muscle, MUSCLE_HU, Grain(canvas, 4.0, 8.0, rng))
    planes = Grain(canvas, 9.0, 60.0, rng)
    for depth in (14.0, 25.0, 37.0):
        bent = thorax.cavity - np.float32(depth) - 2.5 * waves(thorax.points, rng, 60)
        layer = np.abs(bent) - 1.1 * waves(thorax.points, rng, 45)
        canvas.paint(image, common(layer, thorax.muscle + 3.0), -60.0, planes)
    for side in (-1, 1):
        armpit = ellipsoid(thorax.points, (side * 140, -22, 128), (22, 30, 42))
        canvas.paint(image, common(armpit, thorax.body + np.float32(6)), -85.0, planes)
    canvas.paint(image, thorax.cavity, FAT_HU + 8, fat)


def _paint_abdomen(build: Build, canvas: Canvas, thorax: t.Thorax, image: Image, rng: np.random.Generator) -> None:
    """The diaphragm and what lies under it."""
    points = thorax.points
    below = common(thorax.cavity + 2.0, thorax.diaphragm + 2.0, 4)
    muscle = common(common(thorax.cavity, thorax.diaphragm), -(thorax.diaphragm + 4.0))
    canvas.paint(image, muscle, MUSCLE_HU)
    enhanced = 0.35 * max(build.blood_hu - BLOOD_HU, 0)
    lobes = ellipsoid(points, (-70, -5, -62), (78, 92, 88)), ellipsoid(points, (8, -50, -52), (62, 36, 44))
    liver = common(below, joined(*lobes, 20), 8)
    spleen = common(below, ellipsoid(points, (98, 48, -62), (34, 46, 52)), 6)
    stomach = common(below + 3, ellipsoid(points, (58, -26, -58), (46, 40, 44)), 8)
    gas = common(stomach + 3.5, points[1] + np.float32(rng.uniform(22, 34)))
    canvas.paint(image, spleen, 50 + enhanced, Grain(canvas, 3.0, 5.0, rng))
    canvas.paint(image, stomach, 38.0)
    canvas.paint(image, stomach + 3.5, 22.0, Grain(canvas, 6.0, 14.0, rng))
    canvas.paint(image, gas, -960.0)
    canvas.paint(image, liver, 58 + enhanced, Grain(canvas, 4.0, 6.0, rng))


def _paint_mediastinum(build: Build, canvas: Canvas, thorax: t.Thorax, image: Image, rng: np.random.Generator) -> None:
    """The heart and the great vessels in their fat."""
    blood = build.blood_hu
    canvas.paint(image, thorax.heart, FAT_HU + 15)
    canvas.paint(image, thorax.heart + 4.0, 46.0 + 0.25 * (blood - BLOOD_HU), Grain(canvas, 8.0, 5.0, rng))
    for center, radii in t.HEART_CHAMBERS:
        chamber = ellipsoid(thorax.points, center, [r * build.heart for r in radii], t.HEART_TURN)
        canvas.paint(image, common(chamber, thorax.heart + 6.0, 4), blood)
    for path, radius in t.GREAT_VESSELS:
        draw(canvas, image, Tubes.along(build.to_patient(_curve(path)), radius), blood)
    draw(canvas, image, Tubes.along(build.to_patient(_curve(t.ESOPHAGUS)), 8.0, 0.7, (1.0, 0.0, 0.0)), 40.0)
    _paint_nodes(build, canvas, image, rng)
    _paint_calcium(build, canvas, image)


def _paint_nodes(build: Build, canvas: Canvas, image: Image, rng: np.random.Generator) -> None:
    """Lymph nodes in the mediastinum and at the hila."""
    for _ in range(5 + build.hilar_nodes):
        start = np.array([rng.uniform(-34, 34), rng.uniform(-30, 34), rng.uniform(50, 130)])
        path = np.stack([start, start + rng.normal(0, 3.5, 3)])
        draw(canvas, image, Tubes.along(build.to_patient(path), rng.uniform(2.0, 4.5)), 38.0)


def _paint_calcium(build: Build, canvas: Canvas, image: Image) -> None:
    """Plaques in the wall of the aorta."""
    rng = np.random.default_rng([build.seed, 9])
    for _ in range(int(rng.poisson(5 * build.calcified_arteries))):
        path, radius = ((t.AORTIC_ARCH, 13.0), (t.DESCENDING_AORTA, 11.5))[int(rng.integers(2))]
        middle = build.to_patient(path[rng.integers(len(path))])
        angles = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.uniform(0.3, 0.9), 4)
        plaque = middle + radius * np.stack([np.cos(angles), np.sin(angles), 0 * angles + rng.normal(0, 0.3)], axis=1)
        draw(canvas, image, Tubes.along(plaque, rng.uniform(0.8, 1.6)), 520.0)


def _curve(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round the corners of a path."""
    for _ in range(2):
        near, far = 0.75 * path[:-1] + 0.25 * path[1:], 0.25 * path[:-1] + 0.75 * path[1:]
        path = np.concatenate([path[:1], np.stack([near, far], axis=1).reshape(-1, 3), path[-1:]])
    return path


def _paint_lungs(build: Build, canvas: Canvas, thorax: t.Thorax, image: Image, rng: np.random.Generator) -> None:
    """The parenchyma with its fissures, denser where it lies lowest."""
    lungs = thorax.lungs
    base = (build.lung_hu + build.gravity_hu_per_mm * canvas.lattice[1]).astype(np.float32)
    upper = np.clip(canvas.lattice[2] / 120, 0.1, 1.0).astype(np.float32) * np.float32(build.emphysema)
    dependent = np.clip((canvas.lattice[1] - 45) / 30, 0, 1).astype(np.float32) * np.float32(build.atelectasis)
    fine = Grain(canvas, 1.6, build.parenchyma_texture_hu, rng)
    broad = Grain(canvas, 14.0, 9.0, rng)
    holes = Grain(canvas, 6.0, 1.0, rng)
    for box, distance in canvas.slabs(lungs, canvas.edge_mm):
        value = canvas.fine(base, box) + fine.over(box) + broad.over(box)
        if build.emphysema:
            value -= 90 * canvas.fine(upper, box) * np.clip(holes.over(box) - 0.7, 0, 1)
        if build.atelectasis:
            value += (
                260 * canvas.fine(dependent, box) * np.exp(np.minimum(distance, 0) / 4.0) * (1 + 0.6 * holes.over(box))
            )
        value += np.float32(build.fissure_hu) * _fissures(canvas, thorax, box)
        part = image[box]
        alpha = canvas.coverage(distance)
        alpha *= np.clip(value, -1000, -300) - part
        part += alpha


def _fissures(canvas: Canvas, thorax: t.Thorax, box: tuple[slice, slice, slice]) -> Image:
    """How strongly each voxel shows a fissure, 0 to 1."""
    left = canvas.voxel_axes[2][box[2]] > 0
    oblique = np.concatenate(
        [
            canvas.fine(thorax.right_fissure, (box[0], box[1], slice(box[2].start, box[2].start + int((~left).sum())))),
            canvas.fine(thorax.left_fissure, (box[0], box[1], slice(box[2].start + int((~left).sum()), box[2].stop))),
        ],
        axis=2,
    )
    minor = canvas.fine(thorax.minor_fissure, box)
    minor = np.where((oblique > 0) & ~left, np.abs(minor), 99)
    nearest = np.minimum(np.abs(oblique), minor)
    return np.asarray(np.clip(1.0 - nearest / (0.4 + canvas.edge_mm * 0.6), 0, 1), np.float32)


def _paint_trees(build: Build, canvas: Canvas, thorax: t.Thorax, trees: LungTrees, image: Image) -> None:
    """Vessels, then the walls and the air of the airways; none in the heart or under the diaphragm."""
    outside = np.minimum(thorax.heart - 3, thorax.diaphragm)
    parts = (t.TRACHEA, 10.5), (t.RIGHT_BRONCHUS, 8.0), (t.LEFT_BRONCHUS, 7.5)
    windpipe = Tubes.joined([Tubes.along(build.to_patient(_curve(path)), radius) for path, radius in parts])
    draw(canvas, image, windpipe, 35.0)
    draw(canvas, image, trees.veins, build.blood_hu, outside)
    draw(canvas, image, trees.arteries, build.blood_hu, outside)
    draw(canvas, image, trees.airways, -20.0, outside)
    draw(canvas, image, trees.airways.thinner(0.6), -985.0, outside)
    draw(canvas, image, windpipe.thinner(1.7), -995.0)


def _paint_bones(build: Build, canvas: Canvas, image: Image) -> None:
    """Cortex and marrow."""
    bones = skeleton_of(build)
    draw(canvas, image, Tubes.joined(bones.cartilages), 95.0)
    _paint_spine(build, canvas, image)
    draw(canvas, image, bones.canal, 25.0)
    for tubes, cortex, marrow, wall in (
        (bones.arches, 620.0, 260.0, 1.3),
        (Tubes.joined(bones.ribs), 780.0, 170.0, 1.3),
        (bones.flat_bones, 620.0, 130.0, 1.5),
    ):
        draw(canvas, image, tubes, cortex)
        draw(canvas, image, tubes.thinner(wall), marrow)


def _paint_spine(build: Build, canvas: Canvas, image: Image) -> None:
    """Vertebral bodies and discs, worked out voxel by voxel in a box around them."""
    middle = build.to_patient([(0, 46, z) for z in range(-130, 226, 10)])
    margin = np.array([24, 36, 0])
    low, high = middle.min(axis=0) - margin, middle.max(axis=0) + margin
    z, y, x = (
        slice(int(np.searchsorted(axis, a)), int(np.searchsorted(axis, b)))
        for axis, a, b in zip(canvas.voxel_axes, low[::-1], high[::-1], strict=True)
    )
    axes = [canvas.voxel_axes[n][s].astype(np.float32) for n, s in enumerate((z, y, x))]
    gz, gy, gx = np.meshgrid(*axes, indexing="ij")
    bodies, discs = vertebral_bodies(build, (gx, gy, gz))
    part = image[z, y, x]
    grain = Grain(canvas, 2.2, 28.0, np.random.default_rng([build.seed, 7])).over((z, y, x))
    for field, value in ((discs, 85.0), (bodies, 430.0), (bodies + np.float32(1.2), 165.0 + grain)):
        part += np.clip(0.5 - field / (2 * canvas.edge_mm), 0, 1) * (value - part)
