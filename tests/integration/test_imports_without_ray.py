"""What answers requests and what trains on one machine import neither Ray nor scikit-learn."""

import subprocess
import sys


def test_the_server_and_training_in_one_process_import_with_ray_blocked():
    code = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('ray', 'sklearn'): raise ImportError(f'{name} is not installed')\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import playbill.serving.app, playbill.serving.loading, playbill.serving.runtime, playbill.cli.serve\n"
        "import playbill.versions.promotion, playbill.versions.tracking, playbill.cli.recommend\n"
        "import playbill_feast.online.store\n"
        "import playbill.training.run"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
