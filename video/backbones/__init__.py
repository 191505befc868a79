"""Feature networks: VGGish, ResNet-152, R(2+1)D-18, CLIP, CLAP, PE-A-Frame and two light classifiers."""
