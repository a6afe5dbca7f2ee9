"""How fast DICOM is read, beside the usual readers, and in how much memory.

Run ``python benchmarks/reading.py``. Everything is generated in a temporary folder; with the project's test data beside
the repository (or named by ``TOMOLENS_TEST_DATA``) the real JPEG-LS chest CT is timed as well. Readers run in fresh
processes, in turn, with a warm disk cache; the best of the rounds is printed, since a busy machine only ever adds time.
"CPU" is the processor time of all threads together, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SLICES, ROWS = 300, 512
SCANNED_FILES = 10_000
INT16_MB = SLICES * ROWS * ROWS * 2 / 2**20
BAR_TIME, BAR_MEMORY = 1.3, 1.5
REAL_SERIES = "data/open/ct/LIDC-IDRI-0314"


def read_tomolens(folder: str) -> Callable[[], object]:
    from tomolens import read_volume

    return lambda: read_volume(folder)


def read_simpleitk(folder: str) -> Callable[[], object]:
    import SimpleITK as sitk

    def read() -> object:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
        return reader.Execute()

    return read


def read_monai(folder: str) -> Callable[[], object]:
    from monai.transforms import LoadImage

    load = LoadImage(image_only=True)
    return lambda: load(folder)


def scan_tomolens(folder: str) -> Callable[[], object]:
    from tomolens import find_series

    return lambda: find_series(folder)


def measure(work: Callable[[str], Callable[[], object]], folder: str) -> None:
    """Run in a fresh process: print seconds, processor seconds and the growth of the peak resident memory in MiB."""
    prepared = work(folder)
    warm_up(work)
    before, cpu, start = peak_mb(), time.process_time(), time.perf_counter()
    result = prepared()
    run = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "mb": peak_mb() - before}
    print(json.dumps(run))
    del result


def warm_up(work: Callable[[str], Callable[[], object]]) -> None:
    """Load on a tiny series what a reader loads on its first call."""
    with tempfile.TemporaryDirectory() as folder:
        write_slices(Path(folder), 3, 16)
        work(folder)()


def peak_mb() -> float:
    """Peak resident memory; Linux's getrusage would count the parent process before the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_fresh_process(name: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def best(name: str, folder: Path, rounds: int) -> dict[str, float]:
    return min((in_fresh_process(name, folder) for _ in range(rounds)), key=lambda run: run["seconds"])


def write_slices(folder: Path, count: int, rows: int) -> None:
    """An uncompressed CT series of noise."""
    from tomolens.core.grid import Grid
    from tomolens.core.volume import Volume
    from tomolens.io.synthetic_series import write_ct_series

    voxels = np.random.default_rng(0).integers(-1000, 1000, (count, rows, rows)).astype(np.int16)
    write_ct_series(Volume(voxels, Grid.from_axes(voxels.shape)), folder, jpeg_ls=False)


def compare(folder: Path, rounds: int) -> None:
    print(f"{SLICES} uncompressed slices of {ROWS} x {ROWS} ({INT16_MB:.0f} MiB as int16), best of {rounds}")
    print(f"  {'':18}{'seconds':>9}{'CPU':>7}{'x SimpleITK':>13}{'peak MiB':>10}{'x voxels':>10}")
    runs = {name: best(name, folder, rounds) for name in ("SimpleITK", "tomolens", "MONAI")}
    for name, run in runs.items():
        ratio, memory = run["seconds"] / runs["SimpleITK"]["seconds"], run["mb"] / INT16_MB
        print(f"  {name:18}{run['seconds']:9.2f}{run['cpu']:7.2f}{ratio:13.2f}{run['mb']:10.0f}{memory:10.2f}")
    print(f"  {'bar for tomolens':34}{BAR_TIME:13.2f}{BAR_MEMORY:20.2f}")


def real_series() -> Path | None:
    shared = os.environ.get("TOMOLENS_TEST_DATA") or Path(__file__).parents[2] / "shared"
    folder = Path(shared) / REAL_SERIES
    return folder if folder.is_dir() else None


def time_real(folder: Path, rounds: int) -> None:
    slices = len(list(folder.iterdir()))
    print(f"\n{slices} JPEG-LS slices of 512 x 512 ({folder.name}), folder to volume, best of {rounds}")
    for name in ("SimpleITK", "tomolens"):
        run = best(name, folder, rounds)
        print(f"  {name:18}{run['seconds']:9.2f}{run['cpu']:7.2f}")


def time_scan(folder: Path) -> None:
    run = in_fresh_process("scan", folder)
    print(f"\nheaders of {SCANNED_FILES} files into series")
    print(f"  {'tomolens':18}{run['seconds']:9.2f}{run['cpu']:7.2f}{'':13}{run['mb']:10.0f}")


WORK = {"tomolens": read_tomolens, "SimpleITK": read_simpleitk, "MONAI": read_monai, "scan": scan_tomolens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes a reader (default 3)")
    parser.add_argument("--measure", nargs=2, metavar=("READER", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(WORK[arguments.measure[0]], arguments.measure[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        write_slices(Path(folder, "large"), SLICES, ROWS)
        compare(Path(folder, "large"), arguments.rounds)
        if real := real_series():
            time_real(real, arguments.rounds)
        write_slices(Path(folder, "many"), SCANNED_FILES, 8)
        time_scan(Path(folder, "many"))


if __name__ == "__main__":
    main()
