"""Print a function's dict as JSON: `python -m benchmarks.worker MODULE FUNCTION ARGUMENT...`."""

import importlib
import json
import sys

module, function, *arguments = sys.argv[1:]
timed = getattr(importlib.import_module(module), function)(*arguments)
print(json.dumps({"seconds": timed.pop("seconds"), **timed}), flush=True)
