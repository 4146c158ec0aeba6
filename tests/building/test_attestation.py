"""Whose MLX a process ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bisect_tool.building.attestation import foreign


def proof(root: Path, **changes: Any) -> dict[str, Any]:
    site = root / "lib" / "python3.11" / "site-packages" / "mlx"
    module = str(site / "core.cpython-311-x86_64-linux-gnu.so")
    libraries = [module, str(site / "lib" / "libmlx.so"), "/opt/mlx/lib/libpython3.11.so"]
    return {"mlx": "0.3.0", "module": module, "libraries": libraries, **changes}


def test_its_own(tmp_path: Path) -> None:
    assert foreign(proof(tmp_path), tmp_path, "0.3.0") == ""
    assert foreign(proof(tmp_path), tmp_path, None) == ""
    assert foreign(proof(tmp_path, libraries=[]), tmp_path, None) == ""


def test_a_link_to_the_environment_is_the_environment(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    link = tmp_path / "link"
    link.symlink_to(real)
    assert foreign(proof(link), real, None) == foreign(proof(real), link, None) == ""


def test_another_version(tmp_path: Path) -> None:
    assert foreign(proof(tmp_path), tmp_path, "0.3.1") == "ran mlx 0.3.0, not 0.3.1"
    assert foreign(proof(tmp_path, mlx=None), tmp_path, "0.3.1") == "ran mlx None, not 0.3.1"


def test_another_module(tmp_path: Path) -> None:
    told = proof(tmp_path, module="/home/me/mlx/python/mlx/core.cpython-311-darwin.so")
    assert foreign(told, tmp_path, None).startswith("loaded /home/me/mlx/python/mlx/core.")


def test_a_library_from_elsewhere(tmp_path: Path) -> None:
    for name in (
        "/builds/trees/cpu/build/libmlx.so",
        "/builds/trees/cpu/build/libmlx.dylib",
        "/x/libmlx-abc.so",
    ):
        told = proof(tmp_path)
        told["libraries"].append(name)
        assert foreign(told, tmp_path, None) == f"loaded {name}, which is not of this environment"


def test_a_folder_that_only_begins_like_it(tmp_path: Path) -> None:
    root = tmp_path / "built-1"
    beside = proof(tmp_path / "built-10")
    assert foreign(beside, root, None) != ""


def test_a_link_out_of_the_environment(tmp_path: Path) -> None:
    root = tmp_path / "environment"
    root.mkdir()
    (tmp_path / "libmlx.so").touch()
    (root / "libmlx.so").symlink_to(tmp_path / "libmlx.so")
    told = proof(root, libraries=[str(root / "libmlx.so")])
    assert foreign(told, root, None).startswith(f"loaded {root / 'libmlx.so'}")
