"""The locks from which `make` installs: every requirement has a version that fits, every version a hash."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[1]


def locked(lock: str) -> dict[str, list[tuple[Requirement, int]]]:
    """Pins by name, each with its number of hashes; a name has several where Python's version decides."""
    text = (TOP / lock).read_text().replace("\\\n", " ")
    pins: dict[str, list[tuple[Requirement, int]]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=sha256:", line.strip())
            assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes), line
            pin = Requirement(requirement)
            pins.setdefault(canonicalize_name(pin.name), []).append((pin, len(hashes)))
    return pins


@pytest.mark.parametrize(("lock", "extras"), [("requirements.lock", ()), ("requirements-dev.lock", ("dev",))])
def test_every_requirement_is_pinned_to_a_version_that_fits_with_a_hash(lock: str, extras: tuple[str, ...]) -> None:
    config = configparser.ConfigParser()
    config.read(TOP / "setup.cfg")
    build = tomllib.loads((TOP / "pyproject.toml").read_text())["build-system"]["requires"]
    wanted = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in extras)]
    pins = locked(lock)
    for line in [*"\n".join(wanted).splitlines(), *build]:
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line.strip())
            assert canonicalize_name(requirement.name) in pins, f"{requirement}: run `make lock`"
            for pin, n_hashes in pins[canonicalize_name(requirement.name)]:
                version = str(pin.specifier).removeprefix("==")
                assert requirement.specifier.contains(version), f"{requirement}: run `make lock`"
                assert n_hashes


def test_development_changes_no_version() -> None:
    development = locked("requirements-dev.lock")
    for name, pins in locked("requirements.lock").items():
        assert [(pin.specifier, hashes) for pin, hashes in pins] == [
            (pin.specifier, hashes) for pin, hashes in development[name]
        ], f"{name}: run `make lock`"


def test_make_installs_nothing_that_the_lock_does_not_name() -> None:
    recipes = [
        line for line in (TOP / "Makefile").read_text().splitlines() if "pip install" in line and "uv" not in line
    ]
    assert recipes
    optional = [line for line in recipes if "requirements-hf.txt" in line]
    for line in {*recipes} - {*optional}:
        assert "--require-hashes" in line or "--no-deps --no-build-isolation" in line
    # neither `make demo` nor `make test` installs this one
    pins = [line for line in (TOP / "requirements-hf.txt").read_text().splitlines() if not line.startswith("#")]
    assert optional
    assert all("==" in pin for pin in pins)
