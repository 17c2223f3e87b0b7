"""The cores that are emulated, and what /proc/cpuinfo says on each: engines and `detect` read their CPU there.

Refuses nothing; which names there are is the target's business."""

from dataclasses import dataclass

V8 = "fp asimd aes pmull sha1 sha2 crc32"
V82 = f"{V8} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
V7 = "half thumb fastmult vfp edsp thumbee neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae"
V2 = "fpu cx8 cmov mmx sse sse2 pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm"
V3 = f"{V2} fma movbe xsave avx f16c rdrand abm bmi1 avx2 bmi2"


@dataclass(frozen=True)
class Core:
    """A CPU by the name that qemu's `-cpu` knows; `facts` are lines of its /proc/cpuinfo.

    An ARM core's features are those that getauxval gives under qemu 7.2.
    """

    name: str
    arch: str
    facts: tuple[tuple[str, str], ...]

    def cpuinfo(self, count: int) -> str:
        """A /proc/cpuinfo of `count` such cores."""
        lines = "".join(f"{key}\t: {value}\n" for key, value in self.facts)
        return "".join(f"processor\t: {index}\n{lines}\n" for index in range(count))

    def midr(self) -> str:
        """What an ARM core's identification register holds, as the kernel shows it."""
        said = {key: int(value, 0) for key, value in self.facts if key.startswith("CPU ")}
        fields = said["CPU implementer"] << 24 | said["CPU variant"] << 20 | 0xF << 16
        return f"0x{fields | said['CPU part'] << 4 | said['CPU revision']:016x}\n"


def _arm(name: str, part: str, variant: str, revision: str, features: str, level: str = "8") -> Core:
    return Core(
        name,
        "aarch64" if level == "8" else "armv7l",
        (
            ("model name", f"{name} (emulated)"),
            ("BogoMIPS", "108.00"),
            ("Features", features),
            ("CPU implementer", "0x41"),
            ("CPU architecture", level),
            ("CPU variant", variant),
            ("CPU part", part),
            ("CPU revision", revision),
        ),
    )


def _x86(name: str, family_model: tuple[str, str], flags: str) -> Core:
    family, model = family_model
    facts = (
        ("vendor_id", "GenuineIntel"),
        ("cpu family", family),
        ("model", model),
        ("model name", f"{name} (emulated)"),
    )
    return Core(name, "x86_64", (*facts, ("flags", flags)))


CORES = {
    core.name: core
    for core in (
        _arm("cortex-a53", "0xd03", "0x0", "4", f"{V8} cpuid"),
        _arm("cortex-a72", "0xd08", "0x0", "3", f"{V8} cpuid"),
        _arm("cortex-a76", "0xd0b", "0x4", "1", V82),
        _arm("neoverse-n1", "0xd0c", "0x4", "1", V82),
        _arm("cortex-a7", "0xc07", "0x0", "5", V7, level="7"),
        _x86("Nehalem", ("6", "26"), V2),
        _x86("Haswell", ("6", "60"), V3),
    )
}
