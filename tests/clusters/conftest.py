"""Fixtures of real clusters."""

from tests.deploy.kubernetes import lab, plane

__all__ = ["lab", "plane"]
