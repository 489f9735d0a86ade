"""Types of numpy arrays, one name for each kind of element."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats32: TypeAlias = npt.NDArray[np.float32]
Floats64: TypeAlias = npt.NDArray[np.float64]
AnyFloats: TypeAlias = npt.NDArray[np.floating[Any]]
Ints32: TypeAlias = npt.NDArray[np.int32]
Ints64: TypeAlias = npt.NDArray[np.int64]
AnyInts: TypeAlias = npt.NDArray[np.integer[Any]]
Bools: TypeAlias = npt.NDArray[np.bool_]
Mask: TypeAlias = npt.NDArray[np.bool_]
"""True where something counts."""
Indices: TypeAlias = npt.NDArray[np.int64]
"""Places in another array."""
