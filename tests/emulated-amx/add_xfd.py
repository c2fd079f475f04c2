"""Teaches Bochs 3.0 extended feature disable (XFD), without which Linux gives no process AMX tiles.

Two model-specific registers, the bits that announce them, and the trap that comes when an instruction touches tiles
that are switched off (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 13.14).
"""

import pathlib
import sys

REGISTERS = "Bit64u xfd_value = 0, xfd_error = 0;"
EDITS = [
    # (file, behind or before or instead of what, text)
    ("proc_ctrl.cc", "behind", "#define LOG_THIS BX_CPU_THIS_PTR\n", f"\n{REGISTERS}\n"),
    (
        "proc_ctrl.cc",
        "behind",
        "if (! long64_mode() || ! BX_CPU_THIS_PTR cr4.get_OSXSAVE() ||",
        " (xfd_value & BX_XCR0_XTILEDATA_MASK) ||",
    ),
    (
        "proc_ctrl.cc",
        "behind",
        "if (~BX_CPU_THIS_PTR xcr0.val32 & (BX_XCR0_XTILECFG_MASK | BX_XCR0_XTILEDATA_MASK))\n"
        "    exception(BX_UD_EXCEPTION, 0);\n",
        "\n  if (xfd_value & BX_XCR0_XTILEDATA_MASK) {\n"
        "    xfd_error = BX_XCR0_XTILEDATA_MASK;\n"
        "    exception(BX_NM_EXCEPTION, 0);\n"
        "  }\n",
    ),
    ("msr.cc", "behind", "#define LOG_THIS BX_CPU_THIS_PTR\n", "\nextern Bit64u xfd_value, xfd_error;\n"),
    (
        "msr.cc",
        "before",
        "    case BX_MSR_XSS:\n      if (",
        "    case BX_MSR_IA32_XFD: val64 = xfd_value; break;\n"
        "    case BX_MSR_IA32_XFD_ERROR: val64 = xfd_error; break;\n",
    ),
    (
        "msr.cc",
        "before",
        "    case BX_MSR_XSS:\n      {",
        "    case BX_MSR_IA32_XFD: xfd_value = val_64; handleAvxModeChange(); break;\n"
        "    case BX_MSR_IA32_XFD_ERROR: xfd_error = val_64; break;\n",
    ),
    (
        "cpuid.cc",
        "behind",
        "leaf->eax |= (1<<3);\n",
        "    if (is_cpu_extension_supported(BX_ISA_AMX))\n      leaf->eax |= (1<<4);\n",
    ),
    (
        "cpuid.cc",
        "behind",
        "leaf->ecx = (cpu->ia32_xss_suppmask & (1 << subfunction)) != 0;\n",
        "      if (subfunction == 18) leaf->ecx |= 4;\n",
    ),
]


def main() -> None:
    cpu = pathlib.Path(sys.argv[1]) / "cpu"
    for name, where, anchor, text in EDITS:
        path = cpu / name
        source = path.read_text(encoding="latin-1")
        if text in source:
            continue
        if source.count(anchor) != 1:
            sys.exit(f"{path}: {anchor!r} is there {source.count(anchor)} times, expected once: is this Bochs 3.0?")
        path.write_text(
            source.replace(anchor, anchor + text if where == "behind" else text + anchor), encoding="latin-1"
        )


main()
