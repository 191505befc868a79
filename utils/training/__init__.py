"""How a network is trained: the loop, its schedule, checkpoints, devices and precision."""
