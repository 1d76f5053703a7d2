"""Distil arrays in memory, look at what came out, and score it beside real images.

python examples/distill_arrays.py [STEPS]    about two minutes for 1,500 steps on two cores
"""

import sys

from sklearn.datasets import load_digits

import gdd

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 1500

if __name__ == "__main__":  # students train in processes that import this file
    digits = load_digits()
    images, labels = digits.images / 16, digits.target  # (1797, 8, 8) in [0, 1], and 0 to 9

    distilled = gdd.distill(
        {"name": (images, labels), "size": [16, 16]},
        name="arrays",
        pretrain={"steps": STEPS},
        refine={"steps": max(1, STEPS // 3)},
        score=False,
    )
    generator = distilled.load()
    print(generator, "in", distilled.file)

    scores = gdd.evaluate(
        {
            "generator": generator,
            "a set of 10": generator.sample(ipc=10),
            "5 % of real": "real:fraction=0.05",
        },
        {"name": distilled.folder.parent / "arrays.npz", "size": [16, 16]},
        name="arrays",
        evaluate={"archs": ["convnet3-w16"], "seeds": [0, 1], "ipc": [10], "recipe": {"epochs": max(1, STEPS // 5)}},
    )
    print(scores)
