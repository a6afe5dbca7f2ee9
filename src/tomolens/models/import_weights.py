"""A checkpoint's tensors, read without running what a pickle may hold, and checked against the network."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from tomolens.core.errors import ModelError
from tomolens.models.import_archive import LARGEST_ARCHIVE, checked_entries

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

_WRAPPERS = ("model", "state_dict", "network", "net", "model_state_dict")
"""Names under which trainers keep the weights in a checkpoint."""
_NUMBERS = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
)
_SHOWN = 3
_DEEPEST = 4


def read_weights(file: Path, names: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """The tensors of a ``.pt`` or ``.safetensors`` file by name, on the CPU.

    ``names`` are those under which the bundle says that a checkpoint keeps the network, before the usual ones.

    Raises
    ------
    ModelError
        If it holds code (a pickle of objects, TorchScript), is too large or damaged, or holds no plain state dict.
    """
    _check_readable(file)
    if file.stat().st_size > LARGEST_ARCHIVE:
        raise ModelError(f"{file.name} has {file.stat().st_size / 2**30:.1f} GiB; at most 8 are read.")
    values = _safetensors(file) if file.suffix == ".safetensors" else _checkpoint(file)
    for _ in range(_DEEPEST):
        found = [name for name in (*names, *_WRAPPERS) if isinstance(values.get(name), Mapping)]
        values = values[found[0]] if found else values
    tensors = {str(name).removeprefix("module."): value for name, value in values.items()}
    if len(tensors) != len(values):
        raise ModelError(f"{file.name} holds some weights twice, with and without 'module.' before their name.")
    strange = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if strange or not tensors:
        what = f"{strange[0]!r} is no tensor" if strange else "it is empty"
        raise ModelError(f"{file.name} holds no plain state dict: {what}.")
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, file.name)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total > LARGEST_ARCHIVE:
        raise ModelError(f"{file.name} claims {total / 2**30:.1f} GiB of weights; at most 8 are read.")
    if total > 2 * max(file.stat().st_size, 2**20):
        raise ModelError(f"{file.name} claims {total} bytes of weights, more than it holds.")
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}


def _check_readable(file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as unreadable:
        raise ModelError(f"{file.name} cannot be read as weights: {unreadable.strerror or unreadable}.") from unreadable


def _check_tensor(name: str, tensor: torch.Tensor, file: str) -> None:
    if tensor.layout != torch.strided or tensor.dtype not in _NUMBERS or tensor.is_nested or tensor.is_meta:
        raise ModelError(f"{file}: {name} is {tensor.dtype} ({tensor.layout}); plain numbers are taken.")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ModelError(f"{file}: {name} claims {tensor.numel()} numbers, more than the file holds for it.")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ModelError(f"{file}: {name} has weights that are no number (NaN or infinite).")


def _safetensors(file: Path) -> Mapping[str, Any]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(file)
    except Exception as broken:  # whatever a damaged or hostile file makes of the reader
        raise ModelError(f"{file.name} is no safetensors file: {broken}.") from broken
    return tensors


def _checkpoint(file: Path) -> Mapping[str, Any]:
    if zipfile.is_zipfile(file):
        _check_zip(file)
    try:
        values = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # whose words advise to read it all the same
        raise ModelError(
            f"{file.name} is damaged or holds more than tensors, which could run code when it is read; it was not "
            "read. Ask its authors for a plain state dict or safetensors."
        ) from None
    except Exception as broken:  # whatever a damaged or hostile file makes of the reader
        raise ModelError(f"{file.name} cannot be read as weights: {_first_line(broken)}") from broken
    if not isinstance(values, Mapping):
        raise ModelError(f"{file.name} holds a {type(values).__name__}; a state dict is needed.")
    return values


def _check_zip(file: Path) -> None:
    try:
        with zipfile.ZipFile(file) as opened:
            names = [entry.filename for entry in checked_entries(opened, file.name)]
    except ModelError:
        raise
    except Exception as broken:  # whatever a damaged or hostile zip makes of its reader
        raise ModelError(f"{file.name} cannot be read as weights: {broken}.") from broken
    if any("/code/" in f"/{name}" or name.endswith("constants.pkl") for name in names):
        raise ModelError(
            f"{file.name} is TorchScript, which is code; only weights are taken. Use the bundle's plain checkpoint."
        )


def _first_line(problem: BaseException) -> str:
    return str(problem).strip().splitlines()[0][:300] if str(problem).strip() else type(problem).__name__


def check_fit(network: nn.Module, tensors: Mapping[str, torch.Tensor], file: str) -> None:
    """Refuse weights that are not exactly the network's.

    Raises
    ------
    ModelError
        With the first names or shapes that differ.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    lacking, foreign = [n for n in wanted if n not in given], [n for n in given if n not in wanted]
    other = [f"{n} {given[n]} for {wanted[n]}" for n in wanted if n in given and given[n] != wanted[n]]
    problems = (("lacks", lacking), ("holds besides", foreign), ("has other shapes:", other))
    told = [f"{word} {', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)}" for word, names in problems if names]
    if told:
        raise ModelError(f"{file} does not hold the weights of this network: it {'; '.join(told)}.")
