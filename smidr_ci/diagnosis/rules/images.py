"""Root file systems, package managers, images and kernels."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight, Where

__all__ = ["RULES"]

RULES: Final = (
    Rule(
        "opkg-nothing-provides",
        Category.ROOTFS,
        r"(?:^|\s)nothing provides (?P<missing>\S{1,200})(?: .{0,80})? needed by (?P<asker>\S{1,200})",
        ("nothing provides ",),
        Weight.DETAIL,
        hint="No package {missing} was made: its recipe produced an empty (so absent) package, or "
        "RDEPENDS of {asker} has a wrong name. ALLOW_EMPTY or a corrected name helps.",
    ),
    Rule(
        "rootfs-conflict",
        Category.ROOTFS,
        r"(?:check_data_file_clashes: Package (?P<asker>\S{1,200}) wants to install file (?P<what>\S{1,400})|"
        r"file (?P<what2>/\S{1,400}) (?:conflicts between attempted installs|from install of)|"
        r"trying to overwrite '(?P<what3>[^']{1,300})', which is also in package|"
        r"package \S{1,200} conflicts with |\S{1,120} conflicts with \S{1,120} provided by|error: \S{1,200} conflicts with )",
        ("check_data_file_clashes", "onflicts", "trying to overwrite", "from install of"),
        Weight.DETAIL - 1,
        hint="Two packages of the image own the same file or exclude each other: drop one, or use "
        "update-alternatives.",
        where=Where.ANY,
    ),
    Rule(
        "rootfs-not-found",
        Category.ROOTFS,
        r"(?:Couldn't find anything to satisfy '(?P<missing>[^']{1,200})'|No match for argument: (?P<missing2>\S{1,200})|"
        r"E: Unable to locate package (?P<missing3>\S{1,200})|E: Package '(?P<missing4>[^']{1,200})' has no installation candidate|"
        r"Cannot find package (?P<missing5>\S{1,200})|opkg_prepare_url_for_install: Couldn't find|"
        r"Unknown package '(?P<missing6>[^']{1,200})'|unable to find package|"
        r"The package '?(?P<missing7>[^'\s]{1,200})'? .{0,60}not found|Unable to find a match: (?P<missing8>\S{1,200})|"
        r"No candidates? to install)",
        (
            "satisfy '",
            "No match for",
            "locate package",
            "installation candidate",
            "find package",
            "url_for_install",
            "Unknown package",
            "not found",
            "find a match",
            "candidate",
        ),
        Weight.CAUSE + 5,
        tasks=("do_rootfs", "do_populate_sdk", "do_image"),
        hint="IMAGE_INSTALL or a packagegroup names a package that no recipe makes: check the "
        "package's name (not the recipe's).",
    ),
    Rule(
        "rootfs-solver",
        Category.ROOTFS,
        r"(?:satisfy_dependencies_for: Cannot satisfy the following dependencies for (?P<asker>\S{1,200})|"
        r"Cannot satisfy the following dependencies|(?P<asker2>\S{1,160}) : Depends: (?P<missing>\S{1,160}).{0,120}but|"
        r"^\s{0,4}- (?:package|conflicting requests|cannot install|nothing provides).{0,400}|"
        r"no package provides (?P<missing2>\S{1,200})|Can't install(?: (?P<asker3>\S{1,200}): .{1,200}|$))",
        (
            "Cannot satisfy",
            " : Depends: ",
            "- package",
            "conflicting requests",
            "cannot install",
            "no package provides",
            "Can't install",
        ),
        Weight.CAUSE + 4,
        hint="The packages of the image don't fit together: the line names who needs what.",
    ),
    Rule(
        "rootfs-intercept",
        Category.ROOTFS,
        r"The postinstall intercept hook '(?P<hook>[^']{1,120})' failed",
        ("intercept hook",),
        Weight.CAUSE + 5,
        where=Where.MESSAGE,
        cause_visible=False,
        hint="The intercept script {hook} fails on the build host; log.do_rootfs has what it "
        "printed: run it by hand from the image's intercept_scripts directory.",
    ),
    Rule(
        "rootfs-postinst",
        Category.ROOTFS,
        r"(?:Postinstall scriptlets of(?P<what>.{0,400})|The postinstall intercept hook '(?P<hook>[^']{1,120})' failed|"
        r"The following packages could not be configured offline and rootfs is read-only|"
        r"(?:pre|post)inst(?:all)? (?:script|intercept).{0,120}fail)",
        ("Postinstall scriptlets", "intercept hook", "configured offline", "inst"),
        Weight.CAUSE + 4,
        where=Where.MESSAGE,
        hint="A post-install script fails when it runs on the build host: log.do_rootfs has its "
        "output; move what needs the target to pkg_postinst_ontarget.",
    ),
    Rule(
        "rootfs-install",
        Category.ROOTFS,
        r"(?:Unable to (?:install packages|update the package index)|Could not invoke (?:dnf|apt|opkg)|Unable to (?:clean|get the list)|"
        r"(?:Could not|Cannot) (?:install|update).{0,80}package|Failed to install|rpm -\S{1,20} .{0,200}failed).{0,200}",
        ("Unable to", "Could not", "Cannot", "Failed to install"),
        Weight.SIGN + 5,
        where=Where.MESSAGE,
        next_line=r"(?:nothing provides|Error: |Problem|conflict|E: |Couldn't|Cannot|satisf|No match)",
        next_within=40,
        tasks=("do_rootfs", "do_populate_sdk", "do_image"),
        hint="The package manager says why in the lines below.",
    ),
    Rule(
        "rootfs-too-big",
        Category.IMAGE,
        r"The rootfs size .{1,80}(?:is larger than|exceeds|overrides).{0,200}|"
        r"(?:Rootfs|rootfs|Image|image|initramfs).{0,80}(?:exceeds|too (?:big|large)|larger than)",
        ("size ", "exceeds", "too big", "too large", "larger than"),
        Weight.CAUSE + 5,
        hint="The image is larger than allowed: remove packages, or raise IMAGE_ROOTFS_MAXSIZE or "
        "INITRAMFS_MAXSIZE.",
    ),
    Rule(
        "image-disk-full",
        Category.IMAGE,
        r"^Disk full$|mcopy.{0,200}(?:cannot|fail)|mkfs\.\w{1,10}: .{1,200}|"
        r"(?:__populate_fs|set_inode_xattr|populate_fs).{0,200}|Could not allocate block in ext2 filesystem.{0,200}|"
        r"mke2fs.{0,80}(?:error|fail|Could not|not enough).{0,200}",
        (
            "Disk full",
            "mcopy",
            "mkfs.",
            "populate_fs",
            "set_inode_xattr",
            "allocate block",
            "mke2fs",
        ),
        Weight.CAUSE + 3,
        hint="The partition or file system is too small for what goes into it: raise its size "
        "(BOOT_SPACE, IMAGE_ROOTFS_EXTRA_SPACE, --size in the wks file).",
        where=Where.OUTPUT,
    ),
    Rule(
        "image-disk-full-exact",
        Category.IMAGE,
        r"^Disk full$",
        ("Disk full",),
        Weight.CAUSE + 6,
        hint="The boot partition is too small for the files that go into it: raise its size "
        "(BOOT_SPACE or --size in the wks file).",
        where=Where.OUTPUT,
    ),
    Rule(
        "wic",
        Category.IMAGE,
        r"(?:wic(?:\.\w{1,30})?|ERROR: wic|WicError): .{0,40}(?:ERROR|Error|error|fail|not found|Couldn't|Please|Can't|Unable|A native program).{0,300}|"
        r"ERROR: (?:A native program|Couldn't find|Please build|Please bake|Can't find|No (?:boot|IMAGE_BOOT)|IMAGE_BOOT_FILES|Actual rootfs size|\S{1,60} plugin).{1,300}|"
        r"wic\.\w{1,30}: .{1,300}",
        ("wic", "ERROR: "),
        Weight.CAUSE + 3,
        tasks=("do_image",),
        hint="wic can't make the image: check the .wks file, IMAGE_BOOT_FILES, and what the boot "
        "loader and kernel deploy (do_image_wic[depends]).",
    ),
    Rule(
        "dts-preprocessor",
        Category.KERNEL,
        r"^\s{0,4}(?P<file>[^\s:]{1,400}\.dtsi?):(?P<line>\d{1,7})(?::(?P<column>\d{1,5}))?: (?:fatal )?error: ",
        (".dts",),
        Weight.CAUSE + 8,
        hint="The device tree can't be compiled: a file it includes is missing or wrong.",
    ),
    Rule(
        "dtc",
        Category.KERNEL,
        r"(?:(?:ERROR|Error): (?P<file>[^\s:]{1,300}\.dtsi?):(?P<line>\d{1,7})\.(?P<column>\d{1,5})\S{0,20} (?P<what>.{1,300})|"
        r"(?P<what2>.{0,200}FATAL ERROR: .{1,300})|"
        r"No rule to make target [`'][^'`]{1,300}\.dtbo?')",
        (".dts", "FATAL ERROR", ".dtb"),
        Weight.CAUSE + 6,
        hint="The device tree can't be compiled: check KERNEL_DEVICETREE and the file it names.",
    ),
    Rule(
        "modpost",
        Category.KERNEL,
        r"(?:^(?:ERROR: |FATAL: )?modpost: (?P<what>.{1,300})|WARNING: modpost: .{0,100}fatal|"
        r"modpost: .{0,200}undefined!)",
        ("modpost",),
        Weight.CAUSE + 5,
        hint="A module needs a symbol that the kernel doesn't export in this configuration: "
        "enable the option that brings it, or build against the right kernel.",
    ),
    Rule(
        "kernel-feature",
        Category.KERNEL,
        r"Feature '(?P<missing>[^']{1,200})' not found, this will cause configuration failures",
        ("configuration failures",),
        Weight.CAUSE + 5,
        hint="KERNEL_FEATURES names {missing}, which no kernel metadata of SRC_URI has.",
    ),
    Rule(
        "kernel-meta",
        Category.KERNEL,
        r"(?:Could not locate BSP definition|Could not generate configuration queue|kernel-cache|"
        r"A usable BSP (?:definition|description)|kernel_configcheck|KERNEL_FEATURES|"
        r"A KBUILD_DEFCONFIG|KBUILD_DEFCONFIG '?[^']{1,200}'?|Package Version \(.{1,80}\) does not match of kernel being built|"
        r"Kernel version sanity|ERROR: No (?:kernel )?(?:meta|branch)|specified values did not make it into the kernel|The source tree is not clean|"
        r"Output for device tree|is not clean, please run 'make)",
        (
            "BSP",
            "configuration queue",
            "kernel-cache",
            "configcheck",
            "KERNEL_FEATURES",
            "DEFCONFIG",
            "does not match of kernel",
            "ernel version",
            "ERROR: No",
            "did not make it",
            "not clean",
        ),
        Weight.CAUSE + 4,
        hint="The kernel's metadata doesn't fit: check KMACHINE, KERNEL_FEATURES, KBUILD_DEFCONFIG, "
        "LINUX_VERSION and the branches.",
        where=Where.ANY,
        tasks=(
            "do_kernel",
            "do_configure",
            "do_compile",
            "do_patch",
            "do_validate",
            "do_sizecheck",
        ),
    ),
)
