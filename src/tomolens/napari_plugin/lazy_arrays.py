"""Two arrays in one picture, side by side or mixed: napari asks for a slice, and no more than that is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


class Swiped:
    """Looks like an array to napari: along ``axis`` the first ``first`` planes are those of one array, then the other.

    Parameters
    ----------
    left, right
        Arrays of one shape.
    """

    def __init__(self, left: NDArray[Any], right: NDArray[Any]) -> None:
        self._left, self._right = left, right
        self.shape, self.ndim = left.shape, left.ndim
        self.dtype = np.result_type(left, right)
        self.axis, self.first = self.ndim - 1, self.shape[-1] // 2

    def divide(self, axis: int, share: float) -> None:
        """Give the left array this share of an axis."""
        self.axis, self.first = axis, round(share * self.shape[axis])

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Whole numbers and slices, as for any array."""
        index = index if isinstance(index, tuple) else (index,)
        whole = (*index, *(slice(None),) * (self.ndim - len(index)))
        is_left = np.arange(self.shape[self.axis])[whole[self.axis]] < self.first
        left, right = self._left[whole], self._right[whole]
        if np.ndim(is_left) == 0:
            return np.asarray(left if is_left else right, self.dtype)
        after = sum(isinstance(part, slice) for part in whole[self.axis + 1 :])
        return np.asarray(np.where(is_left.reshape(-1, *(1,) * after), left, right), self.dtype)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[()], dtype)


class Blended:
    """Looks like an array to napari: ``share`` of the way from one array to another, float32.

    Parameters
    ----------
    start, end
        Arrays of one shape.
    """

    def __init__(self, start: NDArray[Any], end: NDArray[Any]) -> None:
        self._start, self._end = start, end
        self.shape, self.ndim, self.dtype = start.shape, start.ndim, np.dtype(np.float32)
        self.share = 1.0

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        """Whatever an array may be asked for."""
        start, end = (np.asarray(array[index], np.float32) for array in (self._start, self._end))
        return np.asarray(start + np.float32(self.share) * (end - start))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[()], dtype)
