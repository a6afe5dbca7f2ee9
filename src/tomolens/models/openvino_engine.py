"""Run a network with OpenVINO instead of torch, where the extra ``[openvino]`` is installed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from tomolens.core.errors import OptionError
from tomolens.core.progress import Progress, Step

_WAIT_MS = 50
_EXAMPLE = 32
_HINTS = {"bfloat16": "bf16", "float32": "f32"}


def check_installed() -> None:
    """Refuse OpenVINO where it is not installed.

    Raises
    ------
    OptionError
        Saying how to install it.
    """
    if find_spec("openvino") is None:
        raise OptionError(
            "Device 'openvino' needs OpenVINO, which is not installed: pip install \"tomolens[openvino]\". "
            "The devices auto and cpu do without."
        )


@dataclass
class Told:
    """Tells how many images of a stage are done, and once more while one runs, so that it can be stopped."""

    progress: Progress
    stage: str
    total: int
    done: int = 0

    def again(self) -> None:
        """Say where the work is; may raise `Cancelled`."""
        self.progress(Step(self.stage, self.done, self.total))

    def finished(self) -> None:
        """One more image is done."""
        self.done += 1
        self.again()


class Engine:
    """A network compiled by OpenVINO for the CPU, for images of any size that the network takes."""

    def __init__(self, network: nn.Module, precision: str, threads: int) -> None:
        import openvino

        example = torch.zeros(1, 1, _EXAMPLE, _EXAMPLE, _EXAMPLE)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # tracing says which Python values it holds for constant
            model = openvino.convert_model(network, example_input=example)
        wishes = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }
        self._compiled: Any = openvino.Core().compile_model(model, "CPU", wishes)

    def run(self, image: torch.Tensor, told: Told) -> torch.Tensor:
        """(1, 1, k, j, i) float32 to the network's answer, float32; what ``told`` raises stops the work."""
        told.again()
        request = self._compiled.create_infer_request()
        request.start_async({0: image.contiguous().numpy()}, share_inputs=True)
        try:
            while not request.wait_for(_WAIT_MS):
                told.again()
        except BaseException:
            request.cancel()
            raise
        answer = torch.from_numpy(request.get_output_tensor(0).data.copy())
        told.finished()
        return answer


@lru_cache(maxsize=2)
def compiled(network: nn.Module, precision: str, threads: int) -> Engine:
    """The engine of a network, compiled when it is first asked for."""
    return Engine(network, precision, threads)
