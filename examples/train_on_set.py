"""Draw ten images per class from a generator, store them, and train on the stored set with a DataLoader.

python examples/train_on_set.py [EPOCHS]    some seconds on two cores; needs MNIST's test part in data/
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

import gdd

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
FILE = Path("runs/mnist-10.safetensors")

gdd.load_generator("zoo:mnist").sample(ipc=10, seed=0).save(FILE)

images = gdd.load_set(FILE)
images.transform = normalize = v2.Normalize(images.mean, images.std)
loader = DataLoader(images, batch_size=32, shuffle=True)

network = nn.Sequential(
    *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(64 * 7 * 7, len(images.class_names))),
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
for _ in range(EPOCHS):
    for batch, labels in loader:
        loss = cross_entropy(network(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(f"last loss {loss.item():.4f} on {len(images)} images")

to_image = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalize])
test = datasets.MNIST("data", train=False, transform=to_image)
with torch.inference_mode():
    right = sum(int((network(batch).argmax(1) == labels).sum()) for batch, labels in DataLoader(test, batch_size=500))
print(f"accuracy on {len(test):,} real test images: {100 * right / len(test):.1f} %")
