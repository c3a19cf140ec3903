"""Send what a run measures to an experiment tracker: TensorBoard, Trackio or Weights & Biases.

Everything is read from the files of the run, so its jobs need no tracker and no network.
"""
