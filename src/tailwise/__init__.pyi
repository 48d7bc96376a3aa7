"""The public names, for editors and type checkers; `__init__.py` imports them when they are first used."""

from .cli.commands import adapt as adapt
from .cli.commands import fit as fit
from .cli.commands import triage as triage
from .core.data import Data as Data
from .core.detector import Detector as Detector
from .core.problem import Labelled as Labelled
from .core.problem import Problem as Problem
from .errors import InputError as InputError
from .integrations.pyod import AsPyOD as AsPyOD
from .integrations.scikit_learn import AnomalyDetector as AnomalyDetector
from .integrations.scikit_learn import Reweighted as Reweighted
from .runs.scorer import open_run as open_run
from .sources.auto import open_source as open_source
from .training.options import Training as Training
from .weights.default import importance_weights as importance_weights
from .weights.loss import ImportanceWeightedLoss as ImportanceWeightedLoss
from .weights.weighting import Weighting as Weighting
from .weights.weighting import effective_sample_size as effective_sample_size
from .weights.weighting import weighted_mean as weighted_mean

__version__: str
__all__: list[str]
