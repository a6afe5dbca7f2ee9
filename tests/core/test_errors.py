from __future__ import annotations

import builtins
import inspect
import re

import pytest

from tomolens.core import errors

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
DRAWN = dict(re.findall(r"── (\w+) *(?:\((\w+)\))?", errors.__doc__ or ""))


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_is_a_tomolens_error(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.TomolensError)


def test_the_tree_is_drawn_as_it_is() -> None:
    assert set(DRAWN) == {kind.__name__ for kind in TREE} - {"TomolensError"}
    for name, builtin in DRAWN.items():
        assert not builtin or issubclass(getattr(errors, name), getattr(builtins, builtin))


def test_who_catches_the_fitting_builtin_catches_ours() -> None:
    with pytest.raises(ValueError, match="gap"):
        raise errors.MissingSliceError("gap")
    with pytest.raises(OSError, match="torn"):
        raise errors.ReadError("torn")
