"""A run and its machine: folder, loop, checkpoints, signals, device, environment."""
