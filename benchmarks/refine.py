"""Images per second of a refinement step in float32 and bfloat16, eager and compiled; prints one JSON line.

`uv run python benchmarks/refine.py --config configs/mnist-cpu.yaml --run.threads 1` (any flag of the scripts may
follow).
"""

from sides import benchmark_stage

if __name__ == "__main__":
    benchmark_stage(__file__, "refine")
