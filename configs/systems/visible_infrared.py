"""What visible-infrared systems share, as the AGW family sets it."""

from ml_collections import ConfigDict

from configs import common


def visible_infrared() -> ConfigDict:
    """What the visible-infrared systems share, as the AGW family sets it; each adds its method, model and loss."""
    config = ConfigDict()
    config.task = "train"
    config.seed = 0
    config.data = common.data()
    config.data.dataset = "sysu_mm01"
    config.data.image_size = (288, 144)
    config.data.interpolation = "lanczos"
    config.data.eval_interpolation = "lanczos"
    config.data.flip = 0.5
    config.data.erasing = 0.0
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.init = common.initial()
    config.optim = common.optim()
    config.optim.lr = 0.1
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.bias_lr_factor = 1.0
    config.optim.schedule = "multi_step"
    config.optim.warmup_epochs = 10  # epoch e of them at (e + 1)/10
    config.optim.milestones = (20, 50)
    config.optim.epochs = 81
    config.train = common.train()
    config.train.replacement = True
    config.train.eval_every = 2
    config.eval = common.evaluation()
    config.eval.feature = "fc"
    return config
