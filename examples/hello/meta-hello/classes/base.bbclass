# The life of a recipe: fetch, unpack, compile, install, populate_sysroot.

inherit logging

# The builder image's distribution is part of every signature that compiles: what another tool chain
# made is never restored.
def host_distro():
    """`debian-12` and the like; `unknown` where /etc/os-release does not say."""
    facts = {}
    if os.path.exists("/etc/os-release"):
        with open("/etc/os-release", encoding="utf-8") as lines:
            facts = dict(line.rstrip("\n").split("=", 1) for line in lines if "=" in line)
    name, version = (facts.get(key, "").strip("\"'") for key in ("ID", "VERSION_ID"))
    return "-".join(part for part in (name or "unknown", version) if part)

HOST_DISTRO := "${@host_distro()}"

addtask fetch
do_fetch[network] = "1"
do_fetch[dirs] = "${DL_DIR} ${T}"
do_fetch[vardeps] += "SRCREV"
do_fetch[file-checksums] = "${@bb.fetch2.get_checksum_file_list(d)}"
python do_fetch() {
    trust_local_repositories(d)
    run_fetcher(d, lambda fetcher: fetcher.download())
}

addtask unpack after do_fetch
do_unpack[cleandirs] = "${SOURCES}"
python do_unpack() {
    run_fetcher(d, lambda fetcher: fetcher.unpack(d.getVar("SOURCES")))
}

def run_fetcher(d, action):
    urls = (d.getVar("SRC_URI") or "").split()
    if urls:
        try:
            action(bb.fetch2.Fetch(urls, d))
        except bb.fetch2.BBFetchException as error:
            bb.fatal("%s: %s" % (d.getVar("PN"), error))

def trust_local_repositories(d):
    """Let git read repositories that are mounted, and therefore belong to somebody else.

    What is taken from them is pinned by commit. The user's own settings stay in force.
    """
    paths = []
    for url in (d.getVar("SRC_URI") or "").split():
        scheme, _, path, _, _, parameters = bb.fetch2.decodeurl(url)
        if scheme == "git" and parameters.get("protocol") == "file":
            paths.append(path)
    if not paths:
        return
    home = d.expand("${T}/home")
    bb.utils.mkdirhier(home)
    with open(home + "/.gitconfig", "w") as config:
        config.write("[include]\n\tpath = %s/.gitconfig\n[safe]\n" % d.getVar("HOME"))
        config.writelines("\tdirectory = %s\n" % path for path in paths)
    d.setVar("HOME", home)

addtask compile after do_unpack
do_compile[deptask] = "do_populate_sysroot"
do_compile[dirs] = "${B}"
do_compile[cleandirs] = "${B}"
do_compile[prefuncs] += "extend_recipe_sysroot"
do_compile[vardeps] += "HOST_DISTRO"
do_compile() {
    :
}

extend_recipe_sysroot[cleandirs] = "${RECIPE_SYSROOT}"
python extend_recipe_sysroot() {
    for name in d.getVar("DEPENDS").split():
        copy_component(d, name, d.getVar("RECIPE_SYSROOT"))
}

def copy_component(d, name, target, skip=()):
    """Copy what recipe `name` installed into `target`; returns its directory.

    A recipe is built either for the machine or for all machines with the same processor.
    """
    import shutil
    for arch in (d.getVar("MACHINE"), d.getVar("TARGET_SYS")):
        source = os.path.join(d.getVar("COMPONENTS_DIR"), arch, name)
        if os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns(*skip))
            return source
    bb.fatal("%s has not been built: %s needs it" % (name, d.getVar("PN")))
copy_component[vardepsexclude] = "MACHINE"

addtask install after do_compile
do_install[dirs] = "${B}"
do_install[cleandirs] = "${D}"
do_install[postfuncs] += "record_component"
do_install() {
    :
}

# An image's manifest is made of these lines.
record_component() {
    install -d "${D}/usr/share/components"
    echo "${PN} ${PACKAGE_ARCH} ${PV}-${PR}" > "${D}/usr/share/components/${PN}"
}

addtask populate_sysroot after do_install
SSTATETASKS += "do_populate_sysroot"
do_populate_sysroot[sstate-inputdir] = "${D}"
do_populate_sysroot[sstate-outputdir] = "${COMPONENT_DIR}"
do_populate_sysroot() {
    :
}

addtask build after do_populate_sysroot
do_build[noexec] = "1"
do_build() {
    :
}

addtask listtasks
do_listtasks[nostamp] = "1"
python do_listtasks() {
    for task in sorted(d.getVar("__BBTASKS", False)):
        bb.plain(task)
}

addtask clean
do_clean[nostamp] = "1"
python do_clean() {
    for task in sorted(set(d.getVar("SSTATETASKS").split())):
        sstate_unpublish(d, task)
    bb.utils.remove(d.getVar("WORKDIR"), recurse=True)
    bb.utils.remove(d.getVar("STAMP") + ".*")
}
