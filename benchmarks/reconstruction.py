"""How good reconstruction is on data that was never trained on, beside the classical methods, in the same run.

    python benchmarks/reconstruction.py [--shared ../shared/data] [--parts ct mri sr detector] [--quick]

``ct`` denoises simulated quarter doses whose clean truth is known, with dose simulated in the sinogram, not as in
training; ``mri`` undersamples multi-coil k-space; ``sr`` averages thin slices to thick ones and brings them back;
``detector`` looks for held-out nodules at full dose, at a quarter, and denoised. Each prints the classical methods
first. ``--quick`` looks at less of the same and is no basis for a claim.

What these figures cannot say: noise, coils and slice profiles are simulated; the real images come from few patients.
"""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = ("ct", "mri", "sr", "detector")
"""Each is a module ``reconstruction_PART`` beside this file, with a function ``report(shared, quick)``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="less of the same, in a few minutes")
    wishes = parser.parse_args()
    for part in wishes.parts:
        clock = time.perf_counter()
        print(f"== {part}\n")
        import_module(f"reconstruction_{part}").report(wishes.shared, wishes.quick)
        print(f"\ntook {time.perf_counter() - clock:.0f} s\n")


if __name__ == "__main__":
    main()
