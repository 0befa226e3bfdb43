"""Trains small MNIST networks and exports each as one self-contained ONNX file."""

import os

# onnxruntime reads this when it is imported: nothing we run reports to anyone.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# OpenMP's threads otherwise wait for each other by spinning, which on a busy
# machine takes the core from the very thread they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
