"""Images per second of a refinement step and their share of the peak, in each way to execute it; prints JSON.

`uv run python benchmarks/refine.py --config configs/mnist-cpu.yaml --run.threads 1`
(any flag of the scripts may follow).
"""

from sides import benchmark_stage

if __name__ == "__main__":
    benchmark_stage(__file__, "refine", __doc__)
