"""The former place of ``pipeline.clusters.kubernetes.state``, kept since scripts of others import it from here."""

from pipeline.clusters.kubernetes.state import job_state

__all__ = ["job_state"]
