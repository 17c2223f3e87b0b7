"""EfficientNet-Lite0 on ImageNet's 1000 classes: weights and photos that are fetched. Refuses nothing."""
