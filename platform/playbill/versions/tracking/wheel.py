"""The installed Playbill as a wheel, so that a logged model brings the package that reads it.

`mlflow models serve` makes an environment from the model's requirements. A release of Playbill may be on no index that
its machine reaches, and a checkout is on none, so the wheel travels with the model and the requirements name it by its
path inside the model's folder. The format is that of https://packaging.python.org/specifications/binary-distribution-format/.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path

from playbill.config import TEMPLATES, shipped_folder

PACKAGES = ("playbill", "playbill_feast")
"""What answers requests; what the distribution's entry points name comes too, since each of them has to load."""
SHIPPED = ("model_zoo", "feature_repo")
"""Folders that the wheel holds as templates; a checkout has them beside the package."""
EXTRAS = ("models", "tracking")  # extras that a logged model needs
_METADATA = ("METADATA", "entry_points.txt")
_WHEEL = "Wheel-Version: 1.0\nGenerator: playbill\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_MOMENT = (1980, 1, 1, 0, 0, 0)  # of every member, so that one package gives one file, to the byte


def write_wheel(folder: Path) -> Path:
    """Write the installed package into a folder as a wheel, and return its path.

    Equal packages give equal bytes.
    """
    installed = distribution("playbill")
    path = folder / f"playbill-{installed.version}-py3-none-any.whl"
    info = f"playbill-{installed.version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in (*_files_of_packages(installed), *_info(installed, info)):
            wheel.writestr(zipfile.ZipInfo(name, _MOMENT), content, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}")
        record = "\n".join([*lines, f"{info}/RECORD,,", ""])
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD", _MOMENT), record, zipfile.ZIP_DEFLATED)
    return path


def requirement(wheel: Path, place: str) -> str:
    """Return the line of a requirements file that installs a wheel from a place in the model's folder."""
    return f"./{place}/{wheel.name}[{','.join(EXTRAS)}]"


def _files_of_packages(installed: Distribution) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file of the packages, the templates where an installed wheel has them."""
    for name in sorted({*PACKAGES, *(point.module.partition(".")[0] for point in installed.entry_points)}):
        yield from _files(_folder(name), name, but=TEMPLATES)
    for name in SHIPPED:
        yield from _files(shipped_folder(name), f"playbill/{TEMPLATES.name}/{name}")


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None  # it is in the distribution
    assert spec.origin is not None
    return Path(spec.origin).parent


def _files(folder: Path, prefix: str, but: Path | None = None) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and "__pycache__" not in inside.parts and (but is None or but not in path.parents):
            yield f"{prefix}/{inside.as_posix()}", path.read_bytes()


def _info(installed: Distribution, info: str) -> Iterator[tuple[str, bytes]]:
    for name in _METADATA:
        if (text := installed.read_text(name)) is not None:
            yield f"{info}/{name}", text.encode()
    yield f"{info}/WHEEL", _WHEEL.encode()
