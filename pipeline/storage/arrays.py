"""Named arrays as the bytes of one object."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from pipeline.errors import CorruptError

ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def pack_arrays(arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> bytes:
    """Named arrays as the bytes of an npz file. Its members are in name order and dated 1980, so equal arrays give
    equal bytes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", ZIP_DATE)
            member.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with archive.open(member, "w", force_zip64=True) as file:
                array = np.asarray(arrays[name], order="C")
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_arrays(data: bytes, name: str = "object") -> dict[str, np.ndarray]:
    """The named arrays in the bytes of an npz file; every member's CRC is checked (``CorruptError``)."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {info.filename.removesuffix(".npy"): _read_member(archive, info) for info in archive.infolist()}
    except Exception as error:
        raise CorruptError(
            f"{name} is damaged ({error}): its bytes are not the arrays that were written; "
            "delete it and run the step that writes it again"
        ) from error


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array, unpacked straight into its memory: a ledger of a hundred million chunks is not copied twice."""
    with archive.open(info) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        file.read()  # reading to the end checks the CRC
    return array
