SUMMARY = "Ends when a file says so"
do_compile() {
    touch ${TOPDIR}/sleeping
    while [ ! -e ${TOPDIR}/go-on ]; do
        sleep 2
    done
}
