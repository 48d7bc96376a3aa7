"""HDF5 files as MATLAB 7.3 writes them, read without following anything that leads out of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from . import nodata
from .numpy_files import check_claim

# Links that lead to links; a longer chain is a circle.
_LONGEST_CHAIN = 16
# What MATLAB writes at the beginning of its files.
_MATLAB = b"MATLAB"


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, tuple[float, ...]], bool]:
    """The arrays of numbers by their names, their axes reversed as MATLAB has them; their values of no data; and
    whether the file says that MATLAB wrote it, or a program that writes as MATLAB does.

    Raises:
        InputError: h5py is not installed, the file is broken, or an array lies in another file.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{path} is a MATLAB 7.3 file: it needs h5py", "pip install 'tailwise[hyperspectral]'"
        ) from error
    arrays, empty = {}, {}
    try:
        with path.open("rb") as content:
            by_matlab = content.read(len(_MATLAB)) == _MATLAB
        with h5py.File(path, "r") as file:
            for name in file:
                dataset = _inside(path, file, name)
                if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "buif" or dataset.shape is None:
                    continue
                _check_storage(path, name, dataset)
                check_claim(path, dataset.size * dataset.dtype.itemsize)
                arrays[name] = np.asarray(dataset).T
                empty[name] = _nodata(path, dataset)
                by_matlab = by_matlab or "MATLAB_class" in dataset.attrs
    except (InputError, MemoryError):
        raise
    except Exception as error:  # h5py raises many kinds on broken files
        raise InputError(f"cannot read {path}: {str(error) or type(error).__name__}", "is it a MATLAB file?") from error
    return arrays, empty, by_matlab


def _inside(path: Path, group: Any, name: str, chain: int = 0) -> Any:
    """What a name of a group stands for, None where its link leads nowhere.

    Each link is looked at before it is followed, because h5py opens the other file of an external one.
    """
    import h5py

    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise _leads_out(path, name, link.filename)
    if not isinstance(link, h5py.SoftLink):
        return group.get(name)
    if chain == _LONGEST_CHAIN:
        return None
    place = group.file if link.path.startswith("/") else group
    for part in filter(None, link.path.split("/")):
        if not isinstance(place, h5py.Group) or part not in place:
            return None
        place = _inside(path, place, part, chain + 1)
    return place


def _check_storage(path: Path, name: str, dataset: Any) -> None:
    for file, _, _ in dataset.external or ():
        raise _leads_out(path, name, file)
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        if source.file_name != ".":
            raise _leads_out(path, name, source.file_name)


def _leads_out(path: Path, name: str, file: str) -> InputError:
    return InputError(
        f"{path}: the array {name} lies in another file, {file}", "give that file, or copy the array into this one"
    )


def _nodata(path: Path, dataset: Any) -> tuple[float, ...]:
    import h5py

    declared = nodata.declared(path, dict(dataset.attrs))
    if dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED:
        declared += nodata.values_of(path, "fill value", [dataset.fillvalue])
    return declared
