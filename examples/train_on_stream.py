"""Train torchvision's ResNet18 on images that a generator makes while it trains: no image is stored.

python examples/train_on_stream.py [STEPS]    300 steps are minutes on two cores; needs MNIST's test part in data/
"""

import itertools
import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision import datasets, models
from torchvision.transforms import v2

import gdd

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 300

generator = gdd.load_generator("zoo:mnist")
normalize = v2.Normalize(generator.mean, generator.std)

network = models.resnet18(num_classes=len(generator.class_names))
network.conv1 = nn.Conv2d(1, 64, 3, stride=2, padding=1, bias=False)  # for 28x28 pixels of one channel
network.maxpool = nn.Identity()
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

for step, (images, labels) in enumerate(itertools.islice(generator.stream(batch_size=64), STEPS)):
    loss = cross_entropy(network(normalize(images)), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(f"step {step}: loss {loss.item():.3f}")

network.eval()
to_image = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalize])
test = datasets.MNIST("data", train=False, transform=to_image)
with torch.inference_mode():
    right = sum(
        int((network(images).argmax(1) == labels).sum())
        for images, labels in torch.utils.data.DataLoader(test, batch_size=500)
    )
print(f"accuracy on {len(test):,} real test images: {100 * right / len(test):.1f} %")
