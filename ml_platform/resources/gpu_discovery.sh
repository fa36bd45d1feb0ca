#!/bin/sh
# Spark's spark.executor.resource.gpu.discoveryScript: the GPUs of this machine as {"name": "gpu", "addresses": ["0"]}.
set -eu
addresses=$(nvidia-smi --query-gpu=index --format=csv,noheader | sed 's/[^0-9]//g; s/.*/"&"/' | paste -sd, -)
printf '{"name": "gpu", "addresses": [%s]}\n' "$addresses"
