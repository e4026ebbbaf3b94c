"""The networks of the papers, one file each, and the model cards that describe trained networks."""

MODELS = {
    "gamma_net_3d": "pipeline.models.gamma_net_3d:GammaNet3D",
    "identity": "pipeline.models.identity:Identity",
    "gamma_net_2d": "pipeline.models.gamma_net_2d:GammaNet2D",
    "gamma_net_vgg": "pipeline.models.gamma_net_vgg:GammaNetVGG",
    "hgru_contour": "pipeline.models.hgru_contour:HGRUContour",
    "convlstm_contour": "pipeline.models.hgru_contour:ConvLSTMContour",
    "feedforward_contour": "pipeline.models.hgru_contour:FeedforwardContour",
    "plain_unet": "pipeline.models.plain_unet:PlainUNet",
    "plain_gamma": "pipeline.models.plain_gamma:PlainGamma",
    "residual_unet": "pipeline.models.residual_unet:ResidualUNet",
    "connectomics_unet": "pipeline.models.connectomics_unet:ConnectomicsUNet",
    "rignet": "pipeline.models.rignet:rignet",
    "resnet_fcn": "pipeline.models.resnet:ResNetFCN",
    "canvas_lstm": "pipeline.models.canvas_lstm:CanvasLSTM",
    "sections_to_volume": "pipeline.models.sections_to_volume:SectionsToVolume",
}
"""Architecture -> "module:class", loaded when needed."""

REVISIONS = {"resnet_fcn": 2, "canvas_lstm": 2}
"""Architecture -> how often its arithmetic was revised, if it was: what a run predicted before is computed again."""
