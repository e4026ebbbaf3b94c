"""The networks of the papers, one readable file each, and the cards that make them models."""

MODELS = {
    "gamma_net_3d": "pipeline.models.gamma_net_3d:GammaNet3D",
    "identity": "pipeline.models.identity:Identity",
    "residual_unet": "pipeline.models.residual_unet:ResidualUNet",
    "connectomics_unet": "pipeline.models.connectomics_unet:ConnectomicsUNet",
    "rignet": "pipeline.models.rignet:rignet",
    "resnet_fcn": "pipeline.models.resnet:ResNetFCN",
    "canvas_lstm": "pipeline.models.canvas_lstm:CanvasLSTM",
}
"""Architecture -> "module:class", loaded when asked for."""
