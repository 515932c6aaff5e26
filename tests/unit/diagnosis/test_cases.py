"""What BitBake and its tools print when they fail, in brief, and the finding it must lead to."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest

from smidr_ci.diagnosis.engine import diagnose
from smidr_ci.diagnosis.model import Category

C = Category

W = "/b/tmp/work/core2-64-poky-linux/demo/1.0"


@dataclass(frozen=True)
class Case:
    name: str
    category: C
    message: str
    """Part of the message; the whole line where it matters."""
    log: str
    recipe: str | None = None
    task: str | None = None
    file: str | None = None
    line: int | None = None


def failed(task: str, *lines: str, head: str = "") -> str:
    head = head or f"ExecutionError('{W}/temp/run.{task}.9', 1, None, None)"
    block = "".join(f"| {line}\n" for line in lines)
    return (
        f"ERROR: demo-1.0-r0 {task}: {head}\n"
        f"ERROR: Logfile of failure stored in: {W}/temp/log.{task}.9\n"
        f"Log data follows:\n{block}"
        f"ERROR: Task (/l/demo_1.0.bb:{task}) failed with exit code '1'\n"
    )


def in_task(
    name: str,
    category: C,
    task: str,
    *lines: str,
    wanted: int = 0,
    file: str | None = None,
    line: int | None = None,
) -> Case:
    return Case(name, category, lines[wanted], failed(task, *lines), "demo", task, file, line)


def message(name: str, category: C, task: str, text: str) -> Case:
    return Case(name, category, text.splitlines()[0], failed(task, head=text), "demo", task)


def alone(name: str, category: C, log: str, wanted: int = 0, **more: str | int) -> Case:
    return Case(name, category, log.splitlines()[wanted], log, **more)  # type: ignore[arg-type]  # by name


CASES = [
    # Parsing
    alone("unparsed line", C.PARSE_ERROR, "ERROR: ParseError at /l/a.bb:7: unparsed line: 'FOO -= \"x\"'",
          recipe="a", file="/l/a.bb", line=7),
    alone("unparsed lines", C.PARSE_ERROR,
          "ERROR: ParseError at /l/a.bb:7:\nUnparsed lines ['do_x() {']\n", 1, file="/l/a.bb", line=7),
    alone("include", C.MISSING_CLASS,
          "ERROR: ParseError at /l/conf/x.conf:3: Could not include required file conf/machine/z.conf",
          file="/l/conf/x.conf", line=3),
    alone("inherit in configuration", C.MISSING_CLASS,
          "ERROR: ParseError in configuration INHERITs: Could not inherit file classes/z.bbclass"),
    alone("override syntax", C.PARSE_ERROR,
          "ERROR: Variable FOO_append contains an operation using the old override syntax. Please convert"),
    alone("comment in a value", C.PARSE_ERROR,
          "ERROR: There is a confusing multiline, partially commented expression starting on line 12 of "
          "file /l/conf/local.conf:", file="/l/conf/local.conf", line=12),
    alone("dangling bbappend", C.PARSE_ERROR,
          "ERROR: No recipes in default available for:\n  /l/recipes/z_2.%.bbappend\n", 1,
          file="/l/recipes/z_2.%.bbappend"),
    alone("expansion", C.EXPANSION_ERROR,
          "ERROR: ExpansionError during parsing /l/z_1.bb\nTraceback (most recent call last):\n"
          "bb.data_smart.ExpansionError: Failure expanding variable PV, expression was ${@foo()} which "
          "triggered exception NameError: name 'foo' is not defined\n", 2, recipe="z", file="/l/z_1.bb"),
    alone("anonymous python", C.PARSE_ERROR,
          "ERROR: /l/z_1.bb: z: PACKAGECONFIG[a] Only enable,disable,depend can be specified!",
          recipe="z", file="/l/z_1.bb"),
    alone("python in a recipe", C.PARSE_ERROR,
          "ERROR: Unable to parse /l/z_1.bb\nTraceback (most recent call last):\n"
          "  File \"/l/z_1.bb\", line 3\n    if x\n        ^\nSyntaxError: expected ':'\n", 5,
          recipe="z", file="/l/z_1.bb", line=3),
    alone("no license", C.LICENSE,
          "ERROR: /l/z.bb: This recipe does not have the LICENSE field set (z)", recipe="z"),
    alone("local file", C.FETCH,
          "ERROR: /l/z_1.bb: Unable to get checksum for z SRC_URI entry a.patch: file could not be found",
          recipe="z"),
    # Providers and layers
    alone("several providers", C.MULTIPLE_PROVIDERS,
          "ERROR: Multiple .bb files are due to be built which each provide virtual/x (/l/a.bb /l/b.bb)."),
    alone("only a skipped provider", C.MISSING_PROVIDER,
          "ERROR: Nothing RPROVIDES 'z' (but /l/img.bb RDEPENDS on or otherwise requires it)\n"
          "z was skipped: because it has a restricted license 'commercial'. Which is not listed in "
          "LICENSE_FLAGS_ACCEPTED.\n", 1, recipe="img"),
    alone("skipped target", C.MISSING_PROVIDER,
          "ERROR: Nothing PROVIDES 'z'\nz was skipped: incompatible with machine m (not in COMPATIBLE_MACHINE)\n"
          "\nSummary: There was 1 ERROR message, returning a non-zero exit code.\n", 1, recipe="z"),
    alone("layer series", C.LAYER_COMPAT,
          "ERROR: Layer z is not compatible with the core layer which only supports these series: "
          "kirkstone (layer is compatible with dunfell)"),
    alone("layer dependency", C.LAYER_DEPENDENCY,
          "ERROR: Layer 'z' depends on layer 'y', but this layer is not enabled in your configuration"),
    alone("layer directory", C.LAYER_DEPENDENCY,
          "ERROR: The following layer directories do not exist:\nERROR:    /l/meta-z\n"
          "ERROR: Please check BBLAYERS in /b/conf/bblayers.conf\n", 1, file="/l/meta-z"),
    # Fetching
    message("fetcher error", C.FETCH, "do_fetch",
            "Bitbake Fetcher Error: FetchError('Unable to fetch URL from any source.', 'git://x/y')"),
    message("revision", C.FETCH, "do_fetch",
            "Fetcher failure: Unable to find revision 0123 in branch master even from upstream"),
    Case("git output", C.FETCH, "fatal: repository 'https://x/y/' not found",
         failed("do_fetch", head="Fetcher failure: Fetch command git clone x failed with exit code 128, "
                "output:\nCloning into bare repository 'y'...\nfatal: repository 'https://x/y/' not found"),
         "demo", "do_fetch"),
    Case("git without access", C.FETCH, "ERROR: Repository not found.",
         failed("do_fetch", head="Fetcher failure: Fetch command git clone x failed with exit code 128, "
                "output:\nERROR: Repository not found.\n"
                "fatal: Could not read from remote repository."), "demo", "do_fetch"),
    Case("git on a path", C.FETCH, "fatal: '/srv/y.git' does not appear to be a git repository",
         failed("do_fetch", head="Fetcher failure: Fetch command git ls-remote x failed with exit "
                "code 128, output:\nfatal: '/srv/y.git' does not appear to be a git repository\n"
                "fatal: Could not read from remote repository."), "demo", "do_fetch"),
    message("Python task without permission", C.PYTHON_EXCEPTION, "do_unpack",
            "PermissionError(13, 'Permission denied')"),
    message("licence text", C.LICENSE, "do_populate_lic",
            "QA Issue: demo: No generic license file exists for: X in any provider [license-exists]"),
    message("checksum", C.CHECKSUM, "do_fetch",
            "Bitbake Fetcher Error: ChecksumError('Checksum mismatch!\\nFile: \\'a\\' has sha256 checksum"),
    Case("checksum block", C.CHECKSUM, "File: '/dl/a.tar' has md5 checksum 1 when 2 was expected",
         failed("do_fetch", head="Fetcher failure for URL: 'https://x/a.tar'. Checksum mismatch!\n"
                "File: '/dl/a.tar' has md5 checksum 1 when 2 was expected"), "demo", "do_fetch"),
    message("no checksum", C.CHECKSUM, "do_fetch",
            "Bitbake Fetcher Error: NoChecksumError('Missing SRC_URI checksum', 'https://x/a.tar')"),
    message("network forbidden", C.NETWORK_DENIED, "do_fetch",
            "Bitbake Fetcher Error: NetworkAccess('https://x/a', 'wget -t 2')"),
    message("malformed", C.FETCH, "do_fetch", "Bitbake Fetcher Error: MalformedUrl('${MIRROR}')"),
    in_task("pip without network", C.NETWORK_DENIED, "do_compile",
            "WARNING: Retrying after connection broken by 'NewConnectionError: Failed to establish'",
            "ERROR: Could not find a version that satisfies the requirement setuptools"),
    Case("go without network and without a head", C.NETWORK_DENIED, '| go: x/y@v1: Get "https://z": dial tcp: lookup z',
         '| go: x/y@v1: Get "https://z": dial tcp: lookup z\n'
         "ERROR: Task (/l/demo_1.0.bb:do_compile) failed with exit code '1'\n", "demo", "do_compile"),
    in_task("make without a compiler", C.COMPILE, "do_compile", "make: g++: Command not found",
            "make: *** [Makefile:10: a.o] Error 127"),
    # Patches
    Case("hunk", C.PATCH, "Hunk #2 FAILED at 30.",
         failed("do_patch", head="Applying patch 'a.patch' on target directory '/w'\nCmdError('quilt push', "
                "0, 'stdout: Applying patch a.patch\npatching file m.c\nHunk #2 FAILED at 30.\n"
                "Patch a.patch does not apply (enforce with -f)"), "demo", "do_patch"),
    # Configure, compile, link, install
    in_task("autoconf", C.CONFIGURE, "do_configure", "configure: error: foo.h not found",
            "WARNING: exit code 1 from a shell command."),
    in_task("autoconf headline", C.CONFIGURE, "do_configure",
            "configure: error: in `/w/build':", "configure: error: C compiler cannot create executables",
            wanted=1),
    in_task("aclocal", C.CONFIGURE, "do_configure",
            "configure.ac:12: error: possibly undefined macro: AM_GLIB", "autoreconf: autoconf failed",
            file="configure.ac", line=12),
    in_task("cmake", C.CONFIGURE, "do_configure", "CMake Error at CMakeLists.txt:5 (find_package):",
            '  Could not find a package configuration file provided by "Foo" with any of',
            "-- Configuring incomplete, errors occurred!", wanted=1, file="CMakeLists.txt", line=5),
    in_task("cmake's preamble", C.CONFIGURE, "do_configure",
            "CMake Error at cmake/Deps.cmake:7 (find_package):",
            '  By not providing "FindLong.cmake" in CMAKE_MODULE_PATH this project has',
            "  asked CMake to find a package configuration file provided by",
            '  "Long", but CMake did not find one.', "",
            '  Could not find a package configuration file provided by "Long" with any',
            wanted=5, file="cmake/Deps.cmake", line=7),
    in_task("meson", C.CONFIGURE, "do_configure",
            '../demo-1.0/meson.build:9:2: ERROR: Unknown options: "foo"', "ERROR: meson failed",
            file="../demo-1.0/meson.build", line=9),
    in_task("linker in an archive", C.LINK, "do_compile",
            "ld: libx.a(part.o): in function `run':",
            "part.c:(.text.run+0x1c): undefined reference to `greet'", wanted=1, file="part.c"),
    in_task("script of the source", C.COMPILE, "do_compile", "Traceback (most recent call last):",
            f'  File "{W}/git/tools/gen.py", line 12, in <module>', "    import mako",
            "ModuleNotFoundError: No module named 'mako'", wanted=3,
            file=f"{W}/git/tools/gen.py", line=12),
    in_task("clang header", C.COMPILE, "do_compile", "a.c:3:10: fatal error: 'x/y.h' file not found",
            "1 error generated.", file="a.c", line=3),
    in_task("rust", C.COMPILE, "do_compile", "error[E0433]: failed to resolve: use of undeclared crate",
            "error: could not compile `demo` (lib) due to 1 previous error"),
    in_task("go", C.COMPILE, "do_compile", "./main.go:7:2: undefined: foo", file="./main.go", line=7),
    in_task("python module", C.COMPILE, "do_compile", "ModuleNotFoundError: No module named 'poetry'"),
    in_task("lld", C.LINK, "do_compile", "ld.lld: error: undefined symbol: foo",
            "clang: error: linker command failed with exit code 1 (use -v to see invocation)"),
    in_task("multiple definition", C.LINK, "do_compile",
            "ld: b.o:(.bss+0x0): multiple definition of `x'; a.o:(.bss+0x0): first defined here",
            "collect2: error: ld returned 1 exit status"),
    in_task("no rule", C.INSTALL, "do_install", "make: *** No rule to make target 'install'.  Stop."),
    in_task("command not found", C.COMPILE, "do_compile", "/bin/sh: 1: xsltproc: not found",
            "make: *** [Makefile:3: doc] Error 127"),
    in_task("cp", C.INSTALL, "do_install", "cp: cannot stat 'x.conf': No such file or directory"),
    in_task("segfault", C.COMPILE, "do_compile", "Segmentation fault (core dumped)",
            "make: *** [Makefile:3: a.o] Error 139"),
    # Packages, licences, images
    message("not shipped", C.PACKAGE_QA, "do_package",
            "QA Issue: demo: Files/directories were installed but not shipped in any package:\n  /usr/x"),
    message("rdepends", C.PACKAGE_QA, "do_package_qa",
            "QA Issue: /usr/bin/x contained in package demo requires /bin/bash, but no providers found "
            "in RDEPENDS:demo? [file-rdeps]"),
    message("license text", C.LICENSE, "do_populate_lic",
            "QA Issue: demo: The LIC_FILES_CHKSUM does not match for file://COPYING;md5=1"),
    message("unknown owner", C.PACKAGING, "do_package", "KeyError: 'getpwuid(): uid not found: 1000'"),
    message("shared area", C.SSTATE, "do_populate_sysroot",
            "The recipe demo is trying to install files into a shared area when those files already exist."),
    Case("pseudo after the task line", C.PSEUDO, "path mismatch [2 links]: ino 7 db '/a' req '/b'.",
         "ERROR: Task (/l/demo_1.0.bb:do_package) failed with exit code '134' \nPseudo log:\n"
         "path mismatch [2 links]: ino 7 db '/a' req '/b'.\n", "demo", "do_package"),
    Case("dnf", C.ROOTFS, "  - nothing provides libx.so.1 needed by demo-1.0-r0.core2",
         failed("do_rootfs", head="Could not invoke dnf. Command 'dnf install demo' returned 1:\nError: \n"
                " Problem: conflicting requests\n  - nothing provides libx.so.1 needed by demo-1.0-r0.core2"),
         "demo", "do_rootfs"),
    Case("opkg", C.ROOTFS, " *   - nothing provides x needed by y-1.0-r0.all",
         failed("do_rootfs", head="Unable to install packages. Command 'opkg install y' returned 1:\n"
                "Collected errors:\n * Solver encountered 1 problem(s):\n * Problem 1/1:\n"
                " *   - nothing provides x needed by y-1.0-r0.all"), "demo", "do_rootfs"),
    Case("apt", C.ROOTFS, "E: Unable to locate package foo",
         failed("do_rootfs", head="Unable to install packages. Command 'apt-get install foo' returned 100:\n"
                "Reading package lists...\nE: Unable to locate package foo"), "demo", "do_rootfs"),
    message("postinst", C.ROOTFS, "do_rootfs",
            "Postinstall scriptlets of ['x'] have failed. If the intention is to defer them to first boot,"),
    message("too big", C.IMAGE, "do_image",
            "The rootfs size 9000(K) exceeds IMAGE_ROOTFS_MAXSIZE: 8000(K)"),
    in_task("wic", C.IMAGE, "do_image_wic",
            "ERROR: _exec_cmd: install -m 0644 /d/zImage /w/boot returned '1' instead of 0",
            "output: install: cannot stat '/d/zImage': No such file or directory", wanted=1),
    # Kernel
    in_task("device tree", C.KERNEL, "do_compile",
            "Error: arch/arm/boot/dts/x.dts:12.3-4 syntax error", "FATAL ERROR: Unable to parse input tree"),
    in_task("modpost", C.KERNEL, "do_compile", 'ERROR: modpost: "foo" [drivers/x.ko] undefined!'),
    in_task("defconfig", C.KERNEL, "do_configure",
            "*** Can't find default configuration \"arch/arm/configs/x_defconfig\"!"),
    # Hashes, sstate, machine, server
    alone("basehash", C.TASKHASH,
          "ERROR: When reparsing /l/demo_1.0.bb:do_compile, the basehash value changed from 1 to 2. The "
          "metadata is not deterministic and this needs to be fixed.", recipe="demo", task="do_compile"),
    in_task("oom", C.OUT_OF_MEMORY, "do_compile", "c++: fatal error: Killed signal terminated program cc1plus",
            "compilation terminated."),
    in_task("killed", C.OUT_OF_MEMORY, "do_compile", "Killed", "make: *** [Makefile:9: a] Error 137"),
    in_task("disk", C.DISK_SPACE, "do_compile", "a.c:1: fatal error: error writing to a.s: No space left on device"),
    alone("disk monitor", C.DISK_SPACE,
          'ERROR: No new tasks can be executed since the disk space monitor action is "STOPTASKS"!'),
    alone("root", C.SANITY,
          "ERROR:  OE-core's config sanity checker detected a potential misconfiguration.\n"
          "    Either fix the cause of this error or at your own risk disable the checker (see sanity.conf).\n"
          "    Following is the list of potential problems / advisories:\n\n"
          "    Do not use Bitbake as root.\n\n", 4),
    alone("host tools", C.SANITY,
          "ERROR: The following required tools (as specified by HOSTTOOLS) appear to be unavailable in PATH, "
          "please install them in order to proceed:\n  chrpath lz4c\n", 1),
    alone("lock", C.SERVER,
          "ERROR: Unable to acquire lock '/b/bitbake.lock', directory is not writable"),
    alone("server start", C.SERVER,
          "ERROR: Unable to start bitbake server (None)\n"
          "ERROR: Server log for this session (/b/bitbake-cookerdaemon.log):\n"),
    Case("python function", C.PYTHON_EXCEPTION, "Exception: PermissionError: [Errno 13] Permission denied: '/x'",
         "ERROR: demo-1.0-r0 do_unpack: Error executing a python function in exec_func_python() "
         "autogenerated:\n\nThe stack trace of python calls that resulted in this exception/failure was:\n"
         "File: 'exec_func_python() autogenerated', lineno: 2, function: <module>\n"
         "Exception: PermissionError: [Errno 13] Permission denied: '/x'\n", "demo", "do_unpack"),
    alone("interrupted", C.CANCELLED, "Keyboard Interrupt, closing down...\n"),
    alone("mixed releases", C.LAYER_COMPAT,
          "AttributeError: module 'oe.utils' has no attribute 'host_gcc_version'\n"),
    # Old releases
    Case("2014", C.COMPILE, "| a.c:3:5: error: expected declaration",
         f"ERROR: Function failed: do_compile (log file is located at {W}/temp/log.do_compile.9)\n"
         f"ERROR: Logfile of failure stored in: {W}/temp/log.do_compile.9\nLog data follows:\n"
         "| a.c:3:5: error: expected declaration\n| ERROR: oe_runmake failed\n"
         "NOTE: recipe demo-1.0-r0: task do_compile: Failed\n"
         "ERROR: Task 12 (/l/demo_1.0.bb, do_compile) failed with exit code '1'\n", "demo", "do_compile",
         "a.c", 3),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_the_finding_is_the_one_that_a_person_would_name(case: Case) -> None:
    primary = diagnose(io.BytesIO(case.log.encode())).primary
    assert primary is not None
    assert primary.category is case.category
    assert case.message in primary.message
    if case.recipe:
        assert primary.recipe == case.recipe
    assert primary.task == case.task
    if case.file:
        assert primary.file == case.file
    assert case.line is None or primary.line == case.line
    assert primary.hint
