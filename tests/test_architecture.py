"""The arrows between the rooms point one way, and importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each room may import of the project; everything else is forbidden.
ALLOWED: dict[str, set[str]] = {
    "autoencoder": {"autoencoder"},
    "ldm/diffusion": {"ldm.diffusion"},
    "ldm/networks": {"ldm.networks", "ldm.errors"},
    "ldm/data": {"ldm.data", "ldm.errors", "ldm.files"},
    "ldm/conditioning": {"ldm.conditioning", "ldm.data.batch", "ldm.errors", "ldm.training.task"},
    "ldm/training": {
        "ldm.training", "ldm.data.batch", "ldm.errors", "ldm.files", "ldm.storage",
    },
}
HEAVY = (
    "open_clip", "torchvision", "xformers", "webdataset", "torch_fidelity", "timm", "tensorboard",
    "resvg_py", "pyarrow", "pandas", "diffusers", "transformers", "matplotlib", "gradio",
)


def project_imports(path: Path) -> set[str]:
    """Modules of the project that a file imports, relative ones resolved."""
    package = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level)[0] + "." if node.level else ""
            found.add(base + (node.module or ""))
    return {name for name in found if name.split(".")[0] in ("ldm", "autoencoder", "configs")}


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_point_one_way(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        for name in project_imports(path):
            within = any(name == a or name.startswith(a + ".") for a in ALLOWED[room])
            assert within, f"{path.relative_to(ROOT)} imports {name}; {room} may not"


def test_there_is_no_drawer_for_everything() -> None:
    for package in ("ldm", "autoencoder", "scripts"):
        names = [p.stem for p in (ROOT / package).rglob("*.py")]
        assert not {"utils", "util", "helpers", "misc", "common"} & set(names)


def test_scripts_are_thin() -> None:
    for path in (ROOT / "scripts").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 90, path


def test_importing_every_room_loads_nothing_heavy() -> None:
    code = (
        "import sys, ldm, autoencoder, ldm.pipeline, ldm.stage, ldm.networks, ldm.diffusion, "
        "ldm.conditioning, ldm.data, ldm.tasks, ldm.recipe, ldm.drawing\n"
        f"print(','.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_help_needs_no_torch() -> None:
    code = (
        "import runpy, sys\nsys.argv = ['txt2img.py', '--help']\n"
        "try:\n    runpy.run_path('scripts/txt2img.py', run_name='__main__')\n"
        "except SystemExit:\n    pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "a red apple" in done.stdout
