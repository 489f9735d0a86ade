"""How a model keeps up with change: where it fails and why, and what it goes on to learn."""

from playbill.continual.diagnose import DiagnoseOptions, diagnose
from playbill.continual.diagnosis import Diagnosis, SliceDiagnosis

__all__ = ["DiagnoseOptions", "Diagnosis", "SliceDiagnosis", "diagnose"]
