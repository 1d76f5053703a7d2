"""Flags that make every stage run on tiny networks within seconds."""

TINY = [
    *("--gan.width", "4", "--gan.noise_dim", "8", "--gan.r1_every", "2"),
    *("--pretrain.steps", "6", "--pretrain.batch_size", "8", "--refine.steps", "4", "--refine.batch_size", "8"),
    *("--refine.pool.members", "[convnet3-w4, resnet10-w4]", "--refine.pool.redraw_every", "2"),
    *("--refine.pool.steps_before", "1", "--refine.pool.steps_between", "1", "--refine.pool.batch_size", "8"),
    *("--evaluate.archs", "[mlp-w4]", "--evaluate.seeds", "[0, 1]", "--evaluate.ipc", "[2]"),
    *("--evaluate.all_epochs", "1", "--run.log_every", "2", "--run.grid_every", "3", "--run.save_every", "2"),
    *("--run.threads", "1"),
]
