from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from tomolens.models import streaming
from tomolens.models.networks import CenterNet, folded
from tomolens.models.streaming import Rolling, streamed


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(5)
    small = CenterNet(channels=(8, 8, 16, 16), pyramid=8)
    small.train()
    with torch.no_grad():
        small(torch.randn(2, 1, 32, 32, 32))
    return small.eval()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sizes", [(12,), (3, 9), (4, 2, 5, 1), (11, 1)])
def test_a_convolution_fed_piece_by_piece_answers_as_the_whole(stride: int, sizes: tuple[int, ...]) -> None:
    conv = torch.nn.Conv3d(3, 4, 3, stride, 1)
    image = torch.randn(1, 3, 12, 6, 6)
    rolling = Rolling(conv)
    with torch.inference_mode():
        pieces = [rolling(piece, n == len(sizes) - 1) for n, piece in enumerate(image.split(sizes, dim=2))]
        torch.testing.assert_close(torch.cat(pieces, dim=2), conv(image))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slices", [16, 32, 80])
def test_a_streamed_network_answers_as_the_network_does(
    network: torch.nn.Module, dtype: torch.dtype, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PIECE_BYTES", 0)  # pieces as small as can be: seams everywhere
    image = torch.randn(1, 1, slices, 32, 48).to(dtype)
    plain, fast = folded(deepcopy(network)).to(dtype), streamed(deepcopy(network), dtype)
    with torch.inference_mode():
        wanted, given, again = plain(image), fast(image), fast(image)
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(given, wanted, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(given, again, atol=0, rtol=0)


def test_norms_of_a_training_on_several_gpus_are_folded_in_as_others_are(network: torch.nn.Module) -> None:
    synchronised = torch.nn.SyncBatchNorm.convert_sync_batchnorm(deepcopy(network)).eval()
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(synchronised(image), network(image))
        torch.testing.assert_close(
            streamed(deepcopy(synchronised), torch.float32)(image), network(image), atol=1e-4, rtol=1e-4
        )


def test_a_network_of_another_kind_stays_as_it_is() -> None:
    other = torch.nn.Conv3d(1, 2, 3)
    assert streamed(other, torch.float32) is other
