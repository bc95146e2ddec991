"""Trainings shown where their user looks: what metrics.jsonl says goes to TensorBoard, Weights & Biases and others."""
