"""PyOD and tailwise together: weights from PyOD's scores, PyOD's detectors weighed, and ours among PyOD's.

Three kinds of normal, 3,000 : 600 : 300 rows. PyOD's detectors take no sample_weight, so `Reweighted` draws the rows
by their weights; `AsPyOD` has the `decision_scores_`, `threshold_` and `labels_` that PyOD expects.
"""

import numpy as np
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from pyod.utils.utility import standardizer

from tailwise import AnomalyDetector, AsPyOD, Reweighted, importance_weights

COUNTS, FEATURES = (3_000, 600, 300), 6
random = np.random.default_rng(0)
centres = 4 * random.normal(size=(3, FEATURES))


def normals(kind, n):
    return centres[kind] + random.normal(size=(n, FEATURES))


train = np.concatenate([normals(kind, n) for kind, n in enumerate(COUNTS)])
frequent, rare = normals(0, 2_000), normals(2, 2_000)
faults = np.concatenate([normals(kind, 400) for kind in range(3)])
faults[np.arange(1_200), random.integers(FEATURES, size=1_200)] += random.choice([-12, 12], 1_200)

forest = IForest(max_samples=256, random_state=0).fit(train)
weights = importance_weights(forest.decision_scores_)
print(f"rare kind: {COUNTS[2] / len(train):.2f} of the rows, {weights[3_600:].sum() / weights.sum():.2f} of the weight")

ours = AsPyOD(AnomalyDetector("nearest-neighbours"), contamination=0.05)
pool = [KNN(contamination=0.05).fit(train), ours.fit(train)]
known = np.column_stack([model.decision_scores_ for model in pool])
weighed = Reweighted(IForest(max_samples=256), random_state=0).fit(train)
print("threshold: 5 % of the frequent kind rejected")
for name, score in {
    "IForest": forest.decision_function,
    "Reweighted(IForest)": lambda rows: -weighed.decision_function(rows),  # scikit-learn's sign
    "KNN with ours": lambda rows: standardizer(
        known, np.column_stack([model.decision_function(rows) for model in pool])
    )[1].mean(1),
}.items():
    threshold = np.quantile(score(frequent), 0.95)
    rejected, caught = (np.mean(score(rows) > threshold) for rows in (rare, faults))
    print(f"{name:<19}  rare kind rejected {rejected:.2f}  faults caught {caught:.2f}")
print(f"rows labelled outliers: {pool[0].labels_.mean():.2f} by KNN, {ours.labels_.mean():.2f} by ours")

# Expected output:
# rare kind: 0.08 of the rows, 0.26 of the weight
# threshold: 5 % of the frequent kind rejected
# IForest              rare kind rejected 1.00  faults caught 0.89
# Reweighted(IForest)  rare kind rejected 0.17  faults caught 0.88
# KNN with ours        rare kind rejected 0.21  faults caught 1.00
# rows labelled outliers: 0.05 by KNN, 0.05 by ours
