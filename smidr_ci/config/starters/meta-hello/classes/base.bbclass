# Tasks that every recipe has, each after the one before: fetch, unpack, compile, deploy.

addtask fetch
do_fetch[dirs] = "${DL_DIR}"
do_fetch[file-checksums] = "${@bb.fetch.get_checksum_file_list(d)}"
do_fetch[network] = "1"
python do_fetch() {
    bb.fetch2.Fetch((d.getVar("SRC_URI") or "").split(), d).download()
}

addtask unpack after do_fetch
do_unpack[cleandirs] = "${S}"
python do_unpack() {
    bb.fetch2.Fetch((d.getVar("SRC_URI") or "").split(), d).unpack(d.getVar("S"))
}

addtask compile after do_unpack
do_compile[dirs] = "${B}"
do_compile() {
    :
}

addtask deploy after do_compile
do_deploy[dirs] = "${DEPLOY_DIR} ${B}"
do_deploy() {
    :
}

addtask build after do_deploy
do_build[noexec] = "1"
do_build() {
    :
}
