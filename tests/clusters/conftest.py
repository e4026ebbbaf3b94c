"""Fixtures that start real clusters."""

from tests.deploy.kubernetes import lab, plane, reference

__all__ = ["lab", "plane", "reference"]
