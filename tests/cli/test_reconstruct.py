from __future__ import annotations

import json
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from tests.cli import scans
from tests.cli.test_detect import rows, statuses
from tomolens import read_volume, write_volume
from tomolens.core.finding import RESEARCH_USE
from tomolens.core.grid import Grid
from tomolens.core.kspace import KSpace
from tomolens.core.reconstruction import GENERATIVE, Job
from tomolens.io.kspace import write_kspace
from tomolens.io.reconstructions import read_reconstruction
from tomolens.phantoms.markers import found_markers, marked_volume

pytestmark = pytest.mark.usefixtures("fake_models")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def reconstruct(tomolens, out):
    return lambda source, *words, job="ct-denoising": tomolens("reconstruct", source, "-o", out, "--job", job, *words)


@pytest.fixture
def study(tmp_path):
    root = tmp_path / "scans"
    scans.ct(root / "a" / "deep", seed=10, description="Lung 1.0 B60f")
    scans.ct_with_a_gap(root / "b")
    scans.mr(root / "c", seed=13)
    scans.scout(root / "scout")
    return root


def measurement(folder, name="brain.npz"):
    """Four coils of a square, every second line."""
    grid = Grid.from_axes((3, 24, 20), (4.0, 2.0, 2.0))
    image = np.zeros(grid.shape, np.complex64)
    image[:, 6:18, 4:16] = 1
    data = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, (-2, -1)), norm="ortho"), (-2, -1))
    acquired = np.zeros(grid.shape, bool)
    acquired[:, ::2] = True
    folder.mkdir(parents=True, exist_ok=True)
    return write_kspace(KSpace(np.repeat(np.where(acquired, data, 0)[:, None], 4, 1), acquired, grid), folder / name)


def the_folder(out):
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    return folder


def test_every_series_that_the_model_takes_gets_its_images_and_the_others_a_reason(reconstruct, study, out):
    result = reconstruct(study)
    assert result.exit_code == 1
    assert statuses(out) == {"Lung-1-0-B60f": "done", "Gap": "failed", "T2": "refused", "Topogram": "refused"}
    (folder,) = out.glob("Lung-*")
    assert {path.name for path in folder.iterdir()} == {
        "dicom",
        "difference.nii.gz",
        "uncertainty.nii.gz",
        "reconstruction.json",
        "montage.png",
        "series.json",
    }
    assert "1 done, 2 refused, 1 failed" in result.stdout
    assert rows(out)["Lung-1-0-B60f"]["warnings"] == "0"


def test_dicom_in_gives_a_derived_series_of_the_same_patient_in_the_same_place(reconstruct, tmp_path, out):
    source = read_volume(scans.ct(tmp_path / "ct"))
    assert reconstruct(tmp_path / "ct").exit_code == 0
    made = read_volume(the_folder(out) / "dicom")
    header = pydicom.dcmread(made.series.files[0])
    assert made.grid.same_place(source.grid)
    assert made.series.study_uid == source.series.study_uid
    assert made.series.uid != source.series.uid
    assert header.SeriesDescription == "denoised by fake-mean: Thorax 1.0"
    assert (header.PatientName, header.PatientID) == ("Doe^Jane", "MRN-4711")
    assert (
        header.SourceImageSequence[0].ReferencedSOPInstanceUID == pydicom.dcmread(source.series.files[0]).SOPInstanceUID
    )
    assert made.history[-1] == "ct-denoising by fake-mean 0.0.0"


def test_any_other_file_in_gives_nifti_and_so_does_dicom_where_that_is_asked_for(reconstruct, tmp_path, out):
    volume = marked_volume(scans.GRID).permuted((2, 0, 1)).flipped(0)
    reconstruct(write_volume(volume, tmp_path / "case 1.nrrd"))
    made = read_volume(the_folder(out) / "reconstruction.nii.gz")
    assert made.grid.same_place(volume.grid)
    assert set(found_markers(made)) == set(found_markers(volume))
    assert reconstruct(scans.ct(tmp_path / "ct"), "--format", "nifti").exit_code == 0
    assert {path.parent.name[:6] for path in out.glob("*/reconstruction.nii.gz")} == {"case-1", "Thorax"}
    refused = reconstruct(tmp_path / "case 1.nrrd", "--format", "dicom", "--again")
    assert "no DICOM header to derive a series from" in refused.stderr


def test_the_result_is_read_back_whole(reconstruct, tmp_path, out):
    source = read_volume(scans.ct(tmp_path / "ct"))
    reconstruct(tmp_path / "ct", "--baseline", "plain", "--strength", "0.5")
    made = read_reconstruction(the_folder(out))
    assert made.job is Job.DENOISING
    np.testing.assert_array_equal(made.reference.voxels, source.voxels)
    np.testing.assert_array_equal(made.difference, made.volume.voxels.astype(np.float32) - source.voxels)
    assert "plain" in made.baseline.history[-1]
    assert made.run.series_uid == source.series.uid
    assert made.run.options["strength"] == 0.5
    assert made.uncertainty.min() == 2.5  # where nothing was taken away
    assert [str(check) for check in made.checks] == ["noise 20 HU: in range (5 to 80 HU)"]


def test_an_independent_reader_sees_the_maps_in_the_patients_place(reconstruct, tmp_path, out):
    source = read_volume(scans.ct(tmp_path / "ct"))
    reconstruct(tmp_path / "ct")
    for name in ("difference", "uncertainty"):
        image = sitk.ReadImage(str(the_folder(out) / f"{name}.nii.gz"))
        corner = source.grid.to_mm(np.subtract(source.shape, 1))
        np.testing.assert_allclose(
            image.TransformIndexToPhysicalPoint([n - 1 for n in source.shape[::-1]]), corner, atol=1e-3
        )


def test_no_map_is_ever_taken_for_a_scan(tomolens, reconstruct, tmp_path, out):
    reconstruct(scans.ct(tmp_path / "ct"))
    folder = the_folder(out)
    for name in ("difference", "uncertainty"):
        tomolens("detect", folder / f"{name}.nii.gz", "-o", tmp_path / name)
        assert "it is OT, the model takes CT" in (tmp_path / name / "summary.csv").read_text()


def test_checks_with_their_numbers_stand_in_the_json_and_on_the_page(reconstruct, tmp_path, out):
    result = reconstruct(scans.ct(tmp_path / "ct"), "--factor", "5", job="super-resolution")
    assert "1 warning" in result.stderr
    content = json.loads((the_folder(out) / "reconstruction.json").read_text())
    assert [(check["name"], check["inside"]) for check in content["checks"]] == [
        ("slice distance", True),
        ("factor", False),
    ]
    assert content["warnings"] == ["factor 5: OUT OF range (2 to 4)"]
    assert content["notice"] == RESEARCH_USE
    page = (out / "index.html").read_text()
    for told in (
        "OUT OF RANGE",
        "factor 5: OUT OF range (2 to 4)",
        "slice distance",
        "2.5 mm",
        "montage.png",
        RESEARCH_USE,
    ):
        assert told in page
    assert '<td class="number">1 of 2</td>' in page


def test_thin_slices_come_with_the_reference_on_their_grid(reconstruct, tmp_path, out):
    source = read_volume(scans.ct(tmp_path / "ct"))
    assert reconstruct(tmp_path / "ct", "--factor", "2", job="super-resolution").exit_code == 0
    made = read_reconstruction(the_folder(out))
    assert made.volume.shape[0] == 2 * source.shape[0]
    assert made.uncertainty is None
    assert not (the_folder(out) / "uncertainty.nii.gz").exists()
    np.testing.assert_array_equal(made.reference.voxels, np.repeat(source.voxels, 2, axis=0))


def test_kspace_files_become_images_and_images_are_not_taken_for_kspace(reconstruct, study, out):
    measurement(study / "raw")
    result = reconstruct(study, job="mri-reconstruction")
    assert result.exit_code == 0
    assert statuses(out)["brain"] == "done"
    assert statuses(out)["T2"] == "refused"
    assert "undersampling one afterwards is a simulation" in rows(out)["T2"]["message"]
    (folder,) = out.glob("brain-*")
    made = read_reconstruction(folder)
    assert made.volume.modality == "MR"
    assert made.run.source == "brain.npz"
    assert (folder / "reference.nii.gz").exists()


def test_the_page_names_no_side_of_the_patient_where_a_file_does_not_say_where_it_was_measured(
    reconstruct, tmp_path, out
):
    placed = measurement(tmp_path)
    reconstruct(placed, job="mri-reconstruction")
    assert "the patient's right on the left" in (out / "index.html").read_text(encoding="utf-8")
    with np.load(placed) as archive:
        np.savez(placed, kspace=archive["kspace"], acquired=archive["acquired"])
    reconstruct(placed, job="mri-reconstruction")
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "which side of the patient is on the left is not known" in page
    assert "right on the left" not in page
    assert "coronal" not in page


@pytest.mark.parametrize(
    ("name", "told"), [("text.npz", "not a readable NumPy archive"), ("other.npz", "an archive without 'kspace'")]
)
def test_a_file_that_is_named_and_is_no_kspace_says_what_is_wrong_with_it(reconstruct, tmp_path, out, name, told):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    assert reconstruct(tmp_path / name, job="mri-reconstruction").exit_code == 1
    (row,) = rows(out).values()
    assert (row["status"], told in row["message"], name in row["message"]) == ("failed", True, True)


def test_other_commands_and_jobs_do_not_take_kspace_for_an_image(tomolens, reconstruct, tmp_path):
    measurement(tmp_path / "raw")
    for result in (reconstruct(tmp_path / "raw"), tomolens("detect", tmp_path / "raw", "-o", tmp_path / "findings")):
        assert (result.exit_code, "no image series here, but k-space: `tomolens reconstruct`" in result.stdout) == (
            1,
            True,
        )
    (tmp_path / "nothing").mkdir()
    assert "k-space" not in tomolens("detect", tmp_path / "nothing", "-o", tmp_path / "findings").stdout


@pytest.mark.parametrize(("device", "told"), [("cuda", True), ("openvino", True), ("cpu", False), ("auto", False)])
def test_a_classical_method_says_that_it_runs_on_the_cpu_where_another_device_was_asked_for(
    reconstruct, tmp_path, device, told
):
    asked = reconstruct(scans.ct(tmp_path / "ct"), "--model", "plain", "--device", device)
    assert (f"plain runs on the CPU; --device {device} is for networks." in asked.stderr) is told
    assert "runs on the CPU" not in reconstruct(tmp_path / "ct", "--device", device).stderr


def test_an_interrupt_while_a_model_loads_is_heard_when_it_is_loaded(
    reconstruct, tmp_path, out, fake_models, monkeypatch
):
    load = fake_models.load_reconstructor

    def interrupted(name, *, device="auto"):
        signal.raise_signal(signal.SIGINT)
        return load(name, device=device)

    module = SimpleNamespace(load_reconstructor=interrupted)
    monkeypatch.setitem(sys.modules, "tomolens.models.reconstructor", module)
    assert reconstruct(scans.ct(tmp_path / "ct")).exit_code == 130
    assert fake_models.loads
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not out.exists()


def test_a_gan_runs_only_where_that_was_accepted_and_says_so_everywhere(reconstruct, tmp_path, out):
    source = scans.ct(tmp_path / "ct")
    refused = reconstruct(source, "--model", "fake-gan")
    assert refused.exit_code == 2
    assert GENERATIVE in refused.stderr
    assert "--allow-gan" in refused.stderr
    assert not out.exists()
    assert reconstruct(source, "--model", "fake-gan", "--allow-gan").exit_code == 0
    folder = the_folder(out)
    made = read_volume(folder / "dicom")
    assert made.series.description.startswith(GENERATIVE)
    assert GENERATIVE in made.history[-1]
    assert GENERATIVE in read_volume(folder / "difference.nii.gz").history[-2]
    assert json.loads((folder / "reconstruction.json").read_text())["generative"] is True
    assert f"{GENERATIVE}." in (out / "index.html").read_text()


def test_the_model_is_a_network_that_is_no_gan_where_none_is_named(reconstruct, tmp_path, out, fake_models):
    fake_models.networks = {"fake-gan": fake_models.networks["fake-gan"], **fake_models.networks}
    reconstruct(scans.ct(tmp_path / "ct"))
    assert read_reconstruction(the_folder(out)).run.model == "fake-mean"


def test_finished_series_are_skipped_and_whatever_decides_a_result_makes_it_be_done_again(
    reconstruct, tmp_path, out, fake_models
):
    source = scans.ct(tmp_path / "ct")
    reconstruct(source)
    assert "1 skipped" in reconstruct(source).stdout
    assert fake_models.loads == [("fake-mean", "auto")]
    assert "done again: strength was 1.0, is 0.5" in reconstruct(source, "--strength", "0.5").stderr
    assert (
        "done again: strength was 0.5, is 1.0; baseline was none, is plain"
        in reconstruct(source, "--baseline", "plain").stderr
    )
    assert "format was auto, is nifti" in reconstruct(source, "--format", "nifti").stderr
    assert "uncertainty was True, is False" in reconstruct(source, "--no-uncertainty").stderr
    fake_models.retrain()
    assert "weights_sha256 was" in reconstruct(source, "--no-uncertainty").stderr


@pytest.mark.parametrize("name", ["dicom/0003.dcm", "difference.nii.gz"])
def test_a_result_that_was_altered_is_made_again(reconstruct, tmp_path, out, name):
    source = scans.ct(tmp_path / "ct")
    reconstruct(source)
    file = the_folder(out) / name
    file.write_bytes(file.read_bytes()[:-20])
    assert "altered since it was written" in reconstruct(source).stderr
    assert "1 skipped" in reconstruct(source).stdout


def test_nothing_but_the_derived_series_names_the_patient(reconstruct, study, out):
    reconstruct(study)
    for path in (path for path in out.rglob("*") if path.is_file() and path.parent.name != "dicom"):
        content = path.read_bytes()
        assert not [word for word in (b"Doe", b"Jane", b"19420229", b"MRN-4711") if word in content], path


def test_what_cannot_be_is_wrong_usage(tomolens, reconstruct, tmp_path, out):
    source = scans.ct(tmp_path / "ct")
    for words, told in (
        (("--model", "fake-thin"), "fake-thin does super-resolution; a model for ct-denoising is needed"),
        (("--model", "nobody"), "Methods without training for ct-denoising: plain"),
        (("--baseline", "nobody"), "nobody is no method without training for ct-denoising; --baseline takes plain"),
        (("--baseline", "fake-gan", "--allow-gan"), "fake-gan is no method without training"),
        (("--factor", "2"), "factor is for super-resolution"),
        (("--strength", "2"), "'--strength'"),
    ):
        refused = reconstruct(source, *words)
        assert (refused.exit_code, told in " ".join(refused.stderr.split())) == (2, True), refused.stderr
    assert (
        "strength is for ct-denoising; super-resolution takes 1, not 0.5."
        in reconstruct(source, "--strength", "0.5", job="super-resolution").stderr
    )
    assert tomolens("reconstruct", source, "-o", out).exit_code == 2
    assert not out.exists()


def test_a_dry_run_writes_nothing_and_results_of_another_command_are_never_written_over(
    tomolens, reconstruct, study, out, fake_models
):
    assert "Would be: 1 done, 2 refused, 1 failed" in reconstruct(study, "--dry-run").stdout
    assert not out.exists()
    assert not fake_models.loads
    tomolens("detect", study / "a", "-o", out)
    assert "holds results of `tomolens detect`" in reconstruct(study).stderr


@pytest.mark.parametrize("below", ["out", "."])
def test_results_that_lie_in_the_source_are_not_worked_on_in_turn(tomolens, study, below):
    def call(source):
        return tomolens("reconstruct", source, "-o", study / "a" / below, "--job", "ct-denoising").stdout

    assert "1 done" in call(study / "a")
    assert call(study / "a").startswith("1 skipped. ")
    (made,) = (study / "a" / below).glob("Lung-*")
    assert "1 done" in call(made / "dicom")  # asked for by its name


def test_the_two_files_of_bart_are_one_measurement_and_a_change_of_either_is_seen(reconstruct, tmp_path, out):
    folder = tmp_path / "bart"
    folder.mkdir()
    (folder / "scan.hdr").write_text("# Dimensions\n24 24 1 2\n")
    numbers = np.random.default_rng(0).normal(size=(2, 24 * 24 * 2)).astype(np.float32).view(np.complex64)
    for n, source in enumerate((folder, folder / "scan.hdr", folder / "scan.cfl")):
        numbers[0, 0] = n + 1
        numbers.tofile(folder / "scan.cfl")
        told = reconstruct(source, job="mri-reconstruction").stdout
        assert "1 done" in told
        assert len([path for path in out.iterdir() if path.is_dir()]) == 1
