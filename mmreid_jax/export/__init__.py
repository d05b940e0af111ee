"""Trained models for other programs: ONNX, StableHLO, and a folder of safetensors."""
