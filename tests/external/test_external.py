# SPDX-License-Identifier: Apache-2.0
"""What `make install` puts down is enough for an outside program and for the command itself."""

import os
import subprocess
from pathlib import Path

from harness import ROOT


def output(*argv, **kwargs):
    result = subprocess.run([str(a) for a in argv], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, **kwargs)
    assert result.returncode == 0, f"{' '.join(map(str, argv))}: status {result.returncode}\n{result.stdout}"
    return result.stdout


def install(t):
    """make install DESTDIR=..., and the environment that stands in for being installed there."""
    dest = t.work / "dest"
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and not k.startswith("IRONCLAW_")}
    output("make", "-C", ROOT, "install", f"DESTDIR={dest}", f"BUILD={t.build}", env=env)
    pc = next(dest.rglob("ironclaw.pc"))
    prefix = next(line.split("=", 1)[1] for line in pc.read_text().splitlines() if line.startswith("prefix="))
    lib = next(dest.rglob("libironclaw.so")).parent
    env = dict(t.env, PKG_CONFIG_PATH=str(pc.parent), PKG_CONFIG_SYSROOT_DIR=str(dest), LD_LIBRARY_PATH=str(lib),
               IRONCLAW_LIBEXEC=str(next(dest.rglob("ironclaw-vsock")).parent))
    env.pop("IRONCLAW_RECIPES", None)
    return dest, Path(f"{dest}{prefix}"), env


def test_outside_program(t):
    dest, prefix, env = install(t)
    flags = output("pkg-config", "--cflags", "--libs", "ironclaw", env=env).split()
    program = t.work / "task"
    source = Path(__file__).parent / "task.c"
    output("gcc", "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-pedantic", "-Wall", "-Wextra", "-Werror", "-o", program,
           source, *flags)
    assert str(ROOT / "include") not in flags and any(str(dest) in flag for flag in flags), flags
    text = output(program, env=env, timeout=200)
    assert text.splitlines()[0].startswith("outside ready "), text
    assert text.splitlines()[-1] == "left 0", text
    del env["LD_LIBRARY_PATH"]  # the command finds its library by itself, wherever both were put
    assert output(prefix / "bin/ironclaw", "run", "--", "echo", "installed", env=env).endswith("installed\n")


def test_header_alone(t):
    """The public header compiles by itself as C and needs nothing of the tree."""
    source = t.work / "alone.c"
    source.write_text("#include <ironclaw/ironclaw.h>\nint main(void) { return ic_version() == 0; }\n")
    output("gcc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{ROOT}/include", source)


def test_only_public_symbols(t):
    """libironclaw.so exports ic_* alone."""
    library = next(t.build.rglob("libironclaw.so"))
    names = [line.split()[-1] for line in output("nm", "-D", "--defined-only", library).splitlines()]
    foreign = [n for n in names if not n.startswith("ic_")]
    assert names and not foreign, foreign
    header = (ROOT / "include/ironclaw/ironclaw.h").read_text()
    for name in names:
        assert f"{name}(" in header, f"{name} is exported and not in the header"


test_outside_program.alone = True
