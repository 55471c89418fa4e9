"""Policies as files that act without this library: ONNX and PyTorch's pt2.

| file | what |
|---|---|
| `ports.py` | names, shapes and dtypes of what goes in and comes out |
| `step.py` | the step that is exported, as a module |
| `masks.py` | action masks as tensors |
| `onnx.py`, `pt2.py` | the formats: write a file, run one |
| `parity.py` | whether a file acts as its policy does |
"""

from xlstm_rl.export.policy import FORMATS as FORMATS
from xlstm_rl.export.policy import export_policy as export_policy
