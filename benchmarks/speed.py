"""How long a scan takes from DICOM folder to findings, stage by stage, beside MONAI's RetinaNet of the zoo's size.

Run ``python benchmarks/speed.py [FOLDER]`` on a quiet machine. Without a folder the real chest CT of the project's test
data is taken (see ``reading.py``), else 300 generated slices of 512 x 512. A compressed series is timed a second time
without compression, as scanners mostly send them: a lossless decoder can take as long as the network. Each way to run
the network - on the CPU in bfloat16 and float32, by OpenVINO where it is installed, on the first CUDA GPU where there
is one - has a fresh process; the start of Python and the loading of the model are not counted, and the first round
warms up. The least and the median of the rounds are printed: a busy machine only ever adds time.

The network is judged by its arithmetic: its floating point operations over the rate that this machine reaches in one
large 3D convolution of the same precision. The RetinaNet has the size of MONAI's ``lung_nodule_ct_detection``
(ResNet-50, random weights, which cost as much as trained ones). One window of it is measured and the scan is
extrapolated by its number of voxels at the zoo's spacing, without overlap, reading, resampling and joining of boxes:
the least it can take.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from reading import peak_mb, real_series

BARS = {"bfloat16": 3.0, "float32": 6.0, "cuda": 1.0}
BAR_MEMORY_MB = 3 * 1024
BAR_RATIO = 1.5
SLICES, ROWS = 300, 512
SAMPLE = Path(__file__).parents[1] / "sample_volumes" / "chest_ct"
ZOO_SPACING_MM = (0.703125, 0.703125, 1.25)
WINDOW = (128, 128, 96)
"""The measured window of the RetinaNet; the zoo's own, 512 x 512 x 192, does not fit into the memory of a laptop."""


def stages(way: str, folder: str, rounds: int) -> dict[str, Any]:
    """Seconds by stage of each round, after one to warm up, and the peak memory of this process."""
    from tomolens import detect_nodules, read_volume

    detector = detector_for(way)
    laps = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        volume = read_volume(folder)
        read = time.perf_counter() - start
        detection = detect_nodules(volume, detector)
        whole = time.perf_counter() - start
        known = {"read": read, **{name: s for name, s in detection.run.seconds.items() if name != "total"}}
        laps.append({**known, "rest": whole - sum(known.values()), "folder to findings": whole})
    return {"laps": laps[1:], "peak": peak_mb(), "flops": network_flops(volume, detector), "findings": len(detection)}


def detector_for(way: str) -> Any:
    """The default detector on the CPU in a precision, by OpenVINO, or on the GPU."""
    import torch

    from tomolens import load_detector
    from tomolens.models.inference import Backend

    if way in ("openvino", "cuda"):
        return load_detector(device=way)
    detector = load_detector(device="cpu")
    detector.backend = Backend(torch.device("cpu"), getattr(torch, way))
    if detector.second_stage:
        detector.second_stage.backend = detector.backend
    return detector


def ways() -> list[str]:
    """The ways to run the network that this machine has."""
    import torch

    there = {"bfloat16": True, "openvino": find_spec("openvino"), "float32": True, "cuda": torch.cuda.is_available()}
    return [way for way, is_there in there.items() if is_there]


def backend_for(way: str) -> Any:
    """Where a way computes, and how precisely."""
    import torch

    from tomolens.models.inference import Backend

    if way == "cuda":
        return Backend.choose("cuda")
    return Backend(torch.device("cpu"), torch.float32 if way == "float32" else torch.bfloat16)


def network_flops(volume: Any, detector: Any) -> int:
    """Floating point operations of the network on this scan's lung box, counted without running it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tomolens.models.lungs import BOX_MARGIN_MM, find_lungs
    from tomolens.models.networks import DEEPEST_STRIDE, build

    scan = volume.canonical()
    box = scan.cropped(*find_lungs(scan).box_kji(scan.grid, BOX_MARGIN_MM)).extent_mm
    shape = [-(-round(mm) // DEEPEST_STRIDE) * DEEPEST_STRIDE for mm in box]
    network = build(detector.card.network, detector.card.settings).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 1, *shape, device="meta"))
    return int(counter.get_total_flops())


def conv_rate(way: str) -> float:
    """FLOP/s of one large 3D convolution of 64 channels, in the layout that the libraries like best."""
    import torch

    to, shape = backend_for(way), (48, 48, 64)
    conv = torch.nn.Conv3d(64, 64, 3, padding=1).to(to.device, to.dtype).to(memory_format=torch.channels_last_3d)
    image = torch.randn(1, 64, *shape).to(to.device, to.dtype).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        seconds = fastest(lambda: waited(conv(image)), 7)
    return float(2 * 27 * 64 * 64 * np.prod(shape)) / seconds


def waited(answer: Any) -> None:
    """Wait for what a GPU was asked for: one number of it is read."""
    first = answer
    while isinstance(first, (list, tuple, dict)):
        first = next(iter(first.values() if isinstance(first, dict) else first))
    first.flatten()[0].item()


def fastest(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the best of some rounds."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def retina(way: str) -> dict[str, float]:
    """Seconds for one window of a RetinaNet of the zoo's size, and its parameters."""
    import torch

    from tomolens.models.retina_net import retina_net

    settings = {"spatial_dims": 3, "n_input_channels": 1, "conv1_t_stride": [2, 2, 1], "conv1_t_size": [7, 7, 7]}
    network = retina_net("resnet50", settings, [1, 2], 1, 3, [16, 16, 8]).eval()
    count = sum(parameter.numel() for parameter in network.parameters())
    to, layout = backend_for(way), torch.channels_last_3d
    network, image = network.to(to.device, to.dtype), torch.randn(1, 1, *WINDOW).to(to.device, to.dtype)
    if to.dtype == torch.bfloat16:
        network, image = network.to(memory_format=layout), image.contiguous(memory_format=layout)
    with torch.inference_mode():
        seconds = fastest(lambda: waited(network(image)), 2 if way != "cuda" else 5)
    return {"seconds": seconds, "parameters": count, "peak": peak_mb()}


def in_fresh_process(*task: str) -> Any:
    done = subprocess.run([sys.executable, __file__, "--task", *task], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_task(name: str, way: str, *rest: str) -> None:
    if name == "stages":
        print(json.dumps(stages(way, rest[0], int(rest[1]))))
    else:
        print(json.dumps({"rate": conv_rate, "retina": retina}[name](way)))


def print_stages(way: str, folders: Mapping[str, Path], rounds: int) -> None:
    rate = in_fresh_process("rate", way)
    for stored, folder in folders.items():
        print_run(way, stored, folder, rounds, rate)


def print_run(way: str, stored: str, folder: Path, rounds: int, rate: float) -> None:
    run = in_fresh_process("stages", way, str(folder), str(rounds))
    print(f"\n{way}, {stored}: seconds, least and median of {rounds} rounds; {run['findings']} findings")
    for stage in run["laps"][0]:
        taken = [lap[stage] for lap in run["laps"]]
        bar = f"   (bar {BARS[way]:.0f})" if stage == "folder to findings" and way in BARS else ""
        print(f"  {stage:20}{min(taken):7.2f}{statistics.median(taken):7.2f}{bar}")
    print(f"  {'peak memory, MiB':20}{run['peak']:7.0f}          (bar {BAR_MEMORY_MB})")
    network, ideal = min(lap["network"] for lap in run["laps"]), run["flops"] / rate
    print(
        f"  network: {run['flops'] / 1e12:.2f} TFLOP, {ideal:.2f} s at this machine's {rate / 1e9:.0f} GFLOP/s in a 3D"
    )
    print(f"  convolution; it takes {network / ideal:.2f} times that (bar {BAR_RATIO})")


def print_retina(way: str, folder: Path) -> None:
    from tomolens import read_volume

    run = in_fresh_process("retina", way)
    voxels = float(np.prod(read_volume(folder).extent_mm) / np.prod(ZOO_SPACING_MM))
    windows = voxels / float(np.prod(WINDOW))
    size = " x ".join(map(str, WINDOW))
    print(f"\nRetinaNet of {run['parameters'] / 1e6:.1f} million parameters, {way}")
    print(f"  {run['seconds']:.2g} s for one window of {size} (measured, {run['peak']:.0f} MiB)")
    print(f"  {run['seconds'] * windows:.3g} s for the whole scan (extrapolated: {windows:.0f} windows)")


def generated(folder: Path) -> Path:
    """The sample chest CT enlarged to the size of a clinical scan, as uncompressed slices."""
    from tomolens import Grid, Volume, read_volume
    from tomolens.io.synthetic_series import write_ct_series

    small = read_volume(SAMPLE).canonical()
    shape = (SLICES, ROWS, ROWS)
    nearest = [np.arange(n) * old // n for n, old in zip(shape, small.shape, strict=True)]
    spacing = [mm / n for mm, n in zip(small.extent_mm, shape, strict=True)]
    large = Volume(small.voxels[np.ix_(*nearest)], Grid.from_axes(shape, (spacing[0], spacing[1], spacing[2])))
    write_ct_series(large, folder, jpeg_ls=False)
    return folder


def by_storage(folder: Path, temporary: Path) -> dict[str, Path]:
    """The series as it is, by its transfer syntax; where that is compressed also a copy that is not."""
    files = sorted(folder.iterdir())
    syntax = pydicom.dcmread(files[0], stop_before_pixels=True).file_meta.TransferSyntaxUID
    folders = {syntax.name: folder}
    if syntax.is_compressed:
        folders["uncompressed"] = temporary / "uncompressed"
        folders["uncompressed"].mkdir()
        for file in files:
            dataset = pydicom.dcmread(file)
            dataset.decompress()
            dataset.save_as(folders["uncompressed"] / file.name)
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a DICOM series (default: see above)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in each process (default 5)")
    parser.add_argument("--ways", nargs="+", choices=ways(), default=ways(), help="default: all that there are")
    parser.add_argument("--without-retina", action="store_true", help="leave the RetinaNet out")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        run_task(*arguments.task)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or real_series() or generated(Path(temporary, "scan"))
        print(f"{folder.name}: {len(list(folder.iterdir()))} slices")
        folders = by_storage(folder, Path(temporary))
        for way in arguments.ways:
            print_stages(way, folders, arguments.rounds)
        if not arguments.without_retina:
            for way in (way for way in arguments.ways if way != "openvino"):
                print_retina(way, folder)


if __name__ == "__main__":
    main()
