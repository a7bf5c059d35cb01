"""The two kinds of neurons: ReLU, and gated ReLU, whose gates are fixed."""

from typing import Literal

Activation = Literal["relu", "gated_relu"]
ACTIVATIONS = ("relu", "gated_relu")
