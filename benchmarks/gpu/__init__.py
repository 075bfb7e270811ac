"""Rows of one NVIDIA GPU: ``python -m benchmarks.gpu``."""
