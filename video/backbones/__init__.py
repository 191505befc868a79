"""The networks that the features come from: VGGish, ResNet-152, R(2+1)D-18, CLIP and CLAP."""
