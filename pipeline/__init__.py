"""petaseg: from raw electron microscopy to exact neurons.

All arrays are z, y, x; x, y, z order exists only inside ``pipeline.volumes.precomputed``. Boxes are half-open and
in voxels of one mip; physical sizes are in nanometres and carry the suffix ``_nm``.
"""

__version__ = "0.1.0"
