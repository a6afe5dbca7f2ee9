"""Which file of a bundle holds its network's weights: the one that its own configuration loads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tomolens.core.errors import ModelError
from tomolens.models.import_archive import inside
from tomolens.models.import_config import Config, Unknown

_WEIGHTS = (".pt", ".pth", ".safetensors")


def checkpoint(root: Path, config: Config) -> tuple[Path, tuple[str, ...]]:
    """The checkpoint, and the names under which it keeps the network.

    It is the one of the bundle's ``CheckpointLoader``, or the same as safetensors; without a loader ``models/model.pt``
    or ``.safetensors``.

    Raises
    ------
    ModelError
        If it lies outside of the bundle, is missing or no file, or if which one it is cannot be told.
    """
    loaders = _loaders(config)
    if any(loader.get("load_path") != loaders[0][1].get("load_path") for _, loader in loaders):
        places = " and ".join(where for where, _ in loaders)
        raise ModelError(f"{places} load different files; which one the network keeps cannot be told.")
    for where, loader in loaders:
        return _named(root, loader.get("load_path"), where), _names(config, loader)
    for name in ("model.pt", "model.safetensors"):
        if (root / "models" / name).exists():
            return inside(root, f"models/{name}", "the checkpoint"), ()
    script = " The TorchScript beside it is code and is not run." if list(root.glob("models/*.ts")) else ""
    raise ModelError(f"The bundle holds neither models/model.pt nor models/model.safetensors.{script}")


def _loaders(config: Config) -> list[tuple[str, dict[str, Any]]]:
    """Every CheckpointLoader beside the handlers and among them, with its place."""
    places: list[tuple[str | int, ...]] = [("checkpointloader",)] if "checkpointloader" in config else []
    handlers = config.raw("handlers") if "handlers" in config else []
    if not isinstance(handlers, list):
        handlers = config.at("handlers")
    places += [("handlers", n) for n, _ in enumerate(handlers if isinstance(handlers, list) else [])]
    found = [(config.where(*place), config.at(*place)) for place in places]
    return [(where, loader) for where, loader in found if _is_loader(loader)]


def _is_loader(value: Any) -> bool:
    is_named = isinstance(value, dict) and str(value.get("_target_")).rpartition(".")[2] == "CheckpointLoader"
    return is_named and value.get("_disabled_") is not True


def _names(config: Config, loader: Mapping[str, Any]) -> tuple[str, ...]:
    """The entries of the loader's ``load_dict`` that stand for the network."""
    loaded = loader.get("load_dict")
    networks = [config.at(key) for key in ("network", "network_def") if key in config]
    return tuple(key for key, value in loaded.items() if value in networks) if isinstance(loaded, dict) else ()


def _named(root: Path, path: Any, where: str) -> Path:
    if not isinstance(path, str):
        return _only_one(root, path, f"{where}.load_path")
    _, below, name = path.replace("\\", "/").rpartition("models/")
    relative = f"{below}{name}"
    try:
        return inside(root, relative, f"{where}.load_path: the checkpoint")
    except ModelError:
        with suppress(ModelError):
            return inside(root, f"{relative.rpartition('.')[0]}.safetensors", "its conversion")
        raise


def _only_one(root: Path, path: Any, where: str) -> Path:
    """The only weights that there are, where the bundle's word for them is not understood."""
    found = [file.name for file in sorted(root.glob("models/*")) if file.suffix in _WEIGHTS]
    if len(found) != 1:
        text = path.expression if isinstance(path, Unknown) else f"{path!r:.120}"
        raise ModelError(
            f"{where}: {text} is not evaluated, and models holds {', '.join(found) or 'no weights'}: which file is "
            "loaded cannot be told."
        )
    return inside(root, f"models/{found[0]}", f"{where}: the checkpoint")
