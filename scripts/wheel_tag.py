"""Names the platform of a wheel that carries native extensions; without them it is a wheel for every platform."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: The oldest Linux that `max` itself installs on, in the words of its own wheels.
LINUX = "manylinux_2_34"


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # the name that hatchling looks for
    """Sets the tag: any Python 3, since the extensions look up Python's functions by name when they are loaded."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # hatchling's signature
        """Look for extensions before the wheel is written."""
        if any(Path(self.root, "src/maxconv/_prebuilt").glob("*.so")):
            platform = sysconfig.get_platform().replace("linux", LINUX).replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"
