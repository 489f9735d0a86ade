"""How a model keeps up with change: where it fails and why, what it goes on to learn, and what countries add to it."""

from playbill.continual.diagnose import DiagnoseOptions, diagnose
from playbill.continual.diagnosis import Diagnosis, SliceDiagnosis

__all__ = ["DiagnoseOptions", "Diagnosis", "SliceDiagnosis", "diagnose"]
