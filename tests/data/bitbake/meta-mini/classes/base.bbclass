addtask fetch
do_fetch() {
    :
}

addtask compile after do_fetch before do_build
do_compile() {
    echo "compiled by ${PN}"
}

addtask build
do_build[noexec] = "1"
do_build() {
    :
}
