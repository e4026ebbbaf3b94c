"""The networks of the papers, one readable file each, and the cards that make them models."""

MODELS = {
    "gamma_net_3d": "pipeline.models.gamma_net_3d:GammaNet3D",
    "identity": "pipeline.models.identity:Identity",
}
"""Architecture -> "module:class", loaded when asked for."""
