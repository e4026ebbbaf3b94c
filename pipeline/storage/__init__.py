"""Small objects under one folder or URL: whole reads, all-or-nothing writes, sorted lists, compare and swap.

    local path, file://    ``local``    put writes a hidden temporary file beside the target and renames it
    s3://, gs://           ``bucket``   a put is atomic there anyway; retries, checksums, credentials of the environment
    https://, mem://       ``web``      read only; objects that live as long as the process

A reader, in any process and also after ``kill -9``, sees an object either as it was before a put or as it is after it.
"""

from pipeline.storage.addresses import absolute, local_path, parent_of
from pipeline.storage.arrays import pack_arrays, unpack_arrays
from pipeline.storage.errors import MissingObjectError, as_storage_error, storage_errors
from pipeline.storage.local import PARTIAL, is_hidden
from pipeline.storage.objects import ObjectStore, store_of

__all__ = [
    "PARTIAL",
    "MissingObjectError",
    "ObjectStore",
    "absolute",
    "as_storage_error",
    "is_hidden",
    "local_path",
    "pack_arrays",
    "parent_of",
    "storage_errors",
    "store_of",
    "unpack_arrays",
]
