"""The instruction sets of this CPU, as far as compilers use them."""

import platform
import re
import subprocess
from functools import cache
from pathlib import Path

# names in Linux's x86 flags that compilers emit code for; the rest (timers, virtualisation, mitigations) differs
# between virtual machines of one CPU and must not make a runtime look foreign
_X86_CODE = re.compile(
    r"(s?sse|avx|amx|fma|f16c|bmi|popcnt|abm|adx|movbe|aes|vaes|v?pclmul|gfni|sha|xop|tbm|lahf_lm|cx16|3dnowprefetch|apx)"
)

# what ggml compiles for when it is not tuned for this CPU (INS_ENB in its option list)
PORTABLE = {"x86_64": frozenset({"sse4_2", "avx", "avx2", "bmi2", "fma", "f16c"})}


def architecture() -> str:
    """`x86_64`, `arm64`, ...: one name for each, whatever the system calls it."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(machine, machine)


@cache
def features() -> frozenset[str]:
    """Names of this CPU's instruction set extensions, as its system spells them; empty where none can be read."""
    if platform.system() == "Darwin":
        return _darwin(subprocess.run(["sysctl", "-a"], capture_output=True, text=True, check=False).stdout)
    cpuinfo = Path("/proc/cpuinfo")
    return _linux(cpuinfo.read_text()) if cpuinfo.exists() else frozenset()


def _linux(cpuinfo: str) -> frozenset[str]:
    """What every core has: big and little cores may differ."""
    cores = [
        set(line.split(":", 1)[1].split()) for line in cpuinfo.splitlines() if re.match(r"(flags|Features)\s*:", line)
    ]
    common = set.intersection(*cores) if cores else set()
    return frozenset(name for name in common if architecture() != "x86_64" or _X86_CODE.match(name))


def _darwin(sysctl: str) -> frozenset[str]:
    arm = re.findall(r"^hw\.optional\.(?:arm\.)?(\w+): 1$", sysctl, re.MULTILINE)
    intel = re.findall(r"^machdep\.cpu\.(?:leaf7_)?features: (.*)$", sysctl, re.MULTILINE)
    return frozenset(arm) | frozenset(" ".join(intel).lower().split())
