"""The importance-weighted loss in an anomalib model: a mix-in replaces its training step, and nothing else.

anomalib's losses are reduced inside its models, so the step is written again up to where the losses of the images are
still apart. The rest of `WeightedFre` stands in for anomalib's model `Fre`, and `fit` for its engine, with the parts
that are used; LOG.md (2026-11-24) has how the mix-in was tried on anomalib itself.
"""

from types import SimpleNamespace

import torch
from sklearn.datasets import load_digits
from torch import nn

from tailwise import ImportanceWeightedLoss


class Weighted:
    def weigh(self, weighting, samples):
        self.criterion = ImportanceWeightedLoss(weighting, buffer=samples, warmup=20 * samples)
        return self

    def training_step(self, batch, *args, **kwargs):
        before, rebuilt, _ = self.model.get_features(batch.image)  # [b, d]
        losses = (before - rebuilt).square().mean(1)  # [b], where anomalib takes the mean over all
        return {"loss": self.criterion(losses)}


class WeightedFre(Weighted, nn.Module):  # with anomalib: class WeightedFre(Weighted, anomalib.models.Fre)
    def __init__(self):
        super().__init__()
        self.model = SimpleNamespace(get_features=self.get_features)
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10), nn.ReLU(), nn.Linear(10, 64))

    def get_features(self, images):
        return images.flatten(1), self.net(images.flatten(1)), images.shape


def fit(module, images):
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    for part in (part for _ in range(80) for part in images[torch.randperm(len(images))].split(64)):
        optimizer.zero_grad()
        module.training_step(SimpleNamespace(image=part))["loss"].backward()
        optimizer.step()
    return lambda images: (module.get_features(images)[0] - module.get_features(images)[1]).detach().square().mean(1)


images, digits = (torch.from_numpy(array).float() for array in load_digits(return_X_y=True))
kinds = {digit: images[digits == digit].view(-1, 1, 8, 8) / 16 for digit in range(10)}
train = torch.cat([kinds[0][:120], kinds[1][:120], kinds[6][:12], kinds[7][:12]])  # 6 and 7 are rare
for name, weighting in {"plain": "", "weighted": "Importance()"}.items():
    torch.manual_seed(0)
    score = fit(WeightedFre().weigh(weighting, len(train)), train)
    frequent, rare = (torch.cat([score(kinds[d][n:]) for d in pair]) for pair, n in (((0, 1), 120), ((6, 7), 12)))
    print(f"{name:<8}  rare kinds rejected {(rare > frequent.quantile(0.95)).float().mean():.2f}")

# Expected output:
# plain     rare kinds rejected 0.60
# weighted  rare kinds rejected 0.39
