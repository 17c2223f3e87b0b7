"""What a systemd service is denied, as lines of a unit: all that inference does not need.

Refuses words that a unit cannot hold. Each exception has its reason in the unit's own comments."""

from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError

NVIDIA = (
    *("char-nvidia rw", "char-nvidiactl rw", "char-nvidia-frontend rw", "char-nvidia-uvm rw", "char-nvidia-caps r"),
    *("char-drm rw", "char-nvhost* rw", "char-nvmap rw", "/dev/nvmap rw", "char-nvgpu* rw"),
)
"""/dev/nvidia0, nvidiactl, nvidia-uvm and nvidia-caps/* by their names in /proc/devices: until driver 550 the first two
were "nvidia-frontend", since then "nvidia" and "nvidiactl". Then a Jetson's. What is not there is passed over."""
INTEL = ("char-drm rw", "char-accel rw")
DELEGATES = (
    *("char-drm rw", "char-accel rw", "/dev/galcore rw", "/dev/apex_0 rw", "/dev/ethosu0 rw"),
    *("/dev/fastrpc-cdsp rw", "char-usb_device rw"),
)
"""Of the vendors' drivers that stand behind TFLite's delegates; a Coral may be a stick."""
ACCELERATORS = {
    "gpu": ("char-drm rw",),
    "cuda": NVIDIA,
    "tensorrt": NVIDIA,
    "npu": INTEL,
    "auto": INTEL,
    "hetero": INTEL,
    "delegate": DELEGATES,
}
"""By the device of a manifest: what its driver opens."""
GROUPS = ("render", "video")
USER = "edgekit"
"""Who serves a device's folder, and owns it."""
NEAR = ["IPAddressDeny=any", "IPAddressAllow=localhost"]


@dataclass(frozen=True)
class Needs:
    """What must stay open. `opens` says whether it opens TCP sockets itself, `far` whether other machines reach it;
    `bound` are the paths to show in places that are hidden, `runtime` the folders below /run for its sockets; `device`
    is a device's folder, which `edgekit-runtime install` writes to as well."""

    name: str
    user: bool
    opens: bool
    far: bool
    low_port: bool
    runtime: tuple[str, ...]
    bound: tuple[Path, ...]
    python_path: Path | None
    devices: frozenset[str]
    makes_code: bool
    device: Path | None = None


def hardened(needs: Needs) -> list[str]:
    """The lines of the [Service] section."""
    lines = [*_everywhere(needs), ""]
    if needs.user:
        return [
            *lines,
            "# A user's own systemd cannot change users or hide files without help: use the system's for more.",
        ]
    return [*lines, *_files(needs), "", *_rest(needs)]


def path_word(text: str) -> str:
    """A word of a list in a unit: quoted where it must be (a bare colon parts the paths of a bind as well), with
    nothing left for systemd to fill in but `$`."""
    if not text or not text.isprintable() or "\\" in text:
        raise EdgeKitError(f"{text!r} cannot stand in a systemd unit", hint="use a path without such characters")
    word = text.replace("%", "%%")
    plain = all(c.isalnum() or c in "/._-+=,@%$" for c in word)
    return word if plain else '"' + word.replace('"', '\\"') + '"'


def _everywhere(needs: Needs) -> list[str]:
    """What a user's own systemd can deny as well."""
    return [
        f"StateDirectory={needs.name}",
        f"WorkingDirectory=%S/{needs.name}",
        "UMask=0077",
        "NoNewPrivileges=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
        "SystemCallErrorNumber=EPERM",
        f"RestrictAddressFamilies=AF_UNIX{' AF_INET AF_INET6' if needs.opens else ''}",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        *_code(needs),
        *_home(needs),
    ]


def _home(needs: Needs) -> list[str]:
    if not needs.devices & {"cuda", "tensorrt"}:
        return []
    return [
        "# CUDA and TensorRT keep below it what they compile: without, each start takes minutes.",
        f"Environment=HOME=%S/{needs.name}",
        "# Not even root's nvidia-modprobe makes device nodes from here: /dev/nvidia-uvm has to be there before.",
    ]


def _code(needs: Needs) -> list[str]:
    if needs.devices:
        return ["# The drivers of accelerators make machine code while they run.", "MemoryDenyWriteExecute=no"]
    if needs.makes_code:
        return ["# OpenVINO makes machine code while it opens a model.", "MemoryDenyWriteExecute=no"]
    return ["MemoryDenyWriteExecute=yes"]


def _files(needs: Needs) -> list[str]:
    lines = ["DynamicUser=yes", "StateDirectoryMode=0700"]
    if needs.device is not None:
        lines = [
            "# Installations write to the same folder, as the same user: it must stay the same.",
            f"User={USER}",
            f"Group={USER}",
            "StateDirectoryMode=0750",
        ]
        if not needs.device.is_relative_to(Path("/var/lib") / needs.name):
            lines.append(f"ReadWritePaths={path_word(str(needs.device))}")
    made = [name for name in needs.runtime if name]
    if made:
        lines += [f"RuntimeDirectory={' '.join(map(path_word, made))}", "RuntimeDirectoryMode=0755"]
    lines += ["ProtectSystem=strict", f"ProtectHome={'tmpfs' if needs.bound else 'yes'}", "PrivateTmp=yes"]
    lines += [f"BindReadOnlyPaths={path_word(str(path))}" for path in needs.bound]
    if needs.python_path is not None:
        lines.append("Environment=" + path_word(f"PYTHONPATH={needs.python_path}"))
    return lines


def _rest(needs: Needs) -> list[str]:
    return [
        *_devices(needs.devices),
        *_privileges(needs.low_port),
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "ProtectProc=invisible",
        "# Engines read /proc/cpuinfo to choose their kernels.",
        "ProcSubset=all",
        "PrivateMounts=yes",
        "KeyringMode=private",
        "RemoveIPC=yes",
        *([] if needs.opens else ["PrivateNetwork=yes"]),
        *([] if needs.far else NEAR),
    ]


def _devices(devices: frozenset[str]) -> list[str]:
    if not devices:
        return ["PrivateDevices=yes"]
    nodes = sorted({node for device in devices for node in ACCELERATORS.get(device, sum(ACCELERATORS.values(), ()))})
    groups = [name for name in GROUPS if _is_group(name)]
    lines = ["# The accelerator's own devices, and no other.", "DevicePolicy=closed"]
    lines += [f"DeviceAllow={node}" for node in nodes]
    return [*lines, *([f"SupplementaryGroups={' '.join(groups)}"] if groups else [])]


def _privileges(low_port: bool) -> list[str]:
    if low_port:
        right = "CAP_NET_BIND_SERVICE"
        return [
            "# A port below 1024; `--socket` needs no such right.",
            f"CapabilityBoundingSet={right}",
            f"AmbientCapabilities={right}",
        ]
    return ["PrivateUsers=yes", "CapabilityBoundingSet=", "AmbientCapabilities="]


def _is_group(name: str) -> bool:
    import grp

    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
