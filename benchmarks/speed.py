"""How long a scan takes from DICOM folder to findings, stage by stage, beside MONAI's RetinaNet of the zoo's size.

Run ``python benchmarks/speed.py [FOLDER]`` on a quiet machine. Without a folder the real chest CT of the project's test
data is taken (see ``reading.py``), else 300 generated slices of 512 x 512. Each precision runs in a fresh process; the
start of Python and the loading of the model are not counted, and the first round warms up. The least and the median of
the rounds are printed: a busy machine only ever adds time.

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
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from reading import peak_mb, real_series

BARS = {"bfloat16": 3.0, "float32": 6.0}
BAR_MEMORY_MB = 3 * 1024
BAR_RATIO = 1.5
SLICES, ROWS = 300, 512
SAMPLE = Path(__file__).parents[1] / "sample_volumes" / "chest_ct"
ZOO_SPACING_MM = (0.703125, 0.703125, 1.25)
WINDOW = (128, 128, 96)
"""The measured window of the RetinaNet; the zoo's own, 512 x 512 x 192, does not fit into the memory of a laptop."""


def stages(wish: str, folder: str, rounds: int) -> dict[str, Any]:
    """Seconds by stage of each round, after one to warm up, and the peak memory of this process."""
    from tomolens import detect_nodules, read_volume

    detector = detector_for(wish)
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


def detector_for(wish: str) -> Any:
    """The default detector on the CPU in a precision, or as OpenVINO runs it."""
    import torch

    from tomolens import load_detector
    from tomolens.models.inference import Backend

    detector = load_detector(device="openvino" if wish == "openvino" else "cpu")
    if wish != "openvino":
        backend = Backend(torch.device("cpu"), getattr(torch, wish))
        detector.backend = backend
        if detector.second_stage:
            detector.second_stage.backend = backend
    return detector


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


def conv_rate(precision: str) -> float:
    """FLOP/s of one large 3D convolution of 64 channels, as oneDNN likes it best."""
    import torch

    dtype, layout, shape = getattr(torch, precision), torch.channels_last_3d, (48, 48, 64)
    conv = torch.nn.Conv3d(64, 64, 3, padding=1).to(dtype).to(memory_format=layout)
    image = torch.randn(1, 64, *shape).to(dtype).contiguous(memory_format=layout)
    with torch.inference_mode():
        seconds = fastest(lambda: conv(image), 7)
    return float(2 * 27 * 64 * 64 * np.prod(shape)) / seconds


def fastest(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the best of some rounds."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def retina(precision: str) -> dict[str, float]:
    """Seconds for one window of a RetinaNet of the zoo's size, and its parameters."""
    import torch

    from tomolens.models.retina_net import retina_net

    settings = {"spatial_dims": 3, "n_input_channels": 1, "conv1_t_stride": [2, 2, 1], "conv1_t_size": [7, 7, 7]}
    network = retina_net("resnet50", settings, [1, 2], 1, 3, [16, 16, 8]).eval()
    count = sum(parameter.numel() for parameter in network.parameters())
    dtype, layout = getattr(torch, precision), torch.channels_last_3d
    network = network.to(dtype)
    image = torch.randn(1, 1, *WINDOW).to(dtype)
    if precision == "bfloat16":
        network, image = network.to(memory_format=layout), image.contiguous(memory_format=layout)
    with torch.inference_mode():
        return {"seconds": fastest(lambda: network(image), 2), "parameters": count, "peak": peak_mb()}


def in_fresh_process(*task: str) -> Any:
    done = subprocess.run([sys.executable, __file__, "--task", *task], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_task(name: str, precision: str, *rest: str) -> None:
    if name == "stages":
        print(json.dumps(stages(precision, rest[0], int(rest[1]))))
    else:
        print(json.dumps({"rate": conv_rate, "retina": retina}[name](precision)))


def print_stages(precision: str, folder: Path, rounds: int, rate: float) -> None:
    run = in_fresh_process("stages", precision, str(folder), str(rounds))
    print(f"\n{precision}: seconds, least and median of {rounds} rounds; {run['findings']} findings")
    for stage in run["laps"][0]:
        taken = [lap[stage] for lap in run["laps"]]
        bar = f"   (bar {BARS[precision]:.0f})" if stage == "folder to findings" and precision in BARS else ""
        print(f"  {stage:20}{min(taken):7.2f}{statistics.median(taken):7.2f}{bar}")
    print(f"  {'peak memory, MiB':20}{run['peak']:7.0f}          (bar {BAR_MEMORY_MB})")
    network, ideal = min(lap["network"] for lap in run["laps"]), run["flops"] / rate
    print(
        f"  network: {run['flops'] / 1e12:.2f} TFLOP, {ideal:.2f} s at this machine's {rate / 1e9:.0f} GFLOP/s in a 3D"
    )
    print(f"  convolution; it takes {network / ideal:.2f} times that (bar {BAR_RATIO})")


def print_retina(precision: str, folder: Path) -> None:
    from tomolens import read_volume

    run = in_fresh_process("retina", precision)
    voxels = float(np.prod(read_volume(folder).extent_mm) / np.prod(ZOO_SPACING_MM))
    windows = voxels / float(np.prod(WINDOW))
    size = " x ".join(map(str, WINDOW))
    print(f"\nRetinaNet of {run['parameters'] / 1e6:.1f} million parameters, {precision}")
    print(f"  {run['seconds']:.1f} s for one window of {size} (measured, {run['peak']:.0f} MiB)")
    print(f"  {run['seconds'] * windows:.0f} s for the whole scan (extrapolated: {windows:.0f} windows)")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a DICOM series (default: see above)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in each process (default 5)")
    parser.add_argument("--without-retina", action="store_true", help="leave the RetinaNet out")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        run_task(*arguments.task)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or real_series() or generated(Path(temporary, "scan"))
        print(f"{folder.name}: {len(list(folder.iterdir()))} slices")
        for precision in ("bfloat16", "float32"):
            rate = in_fresh_process("rate", precision)
            print_stages(precision, folder, arguments.rounds, rate)
            if precision == "bfloat16" and find_spec("openvino"):
                print_stages("openvino", folder, arguments.rounds, rate)
        if not arguments.without_retina:
            print_retina("bfloat16", folder)
            print_retina("float32", folder)


if __name__ == "__main__":
    main()
