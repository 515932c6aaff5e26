SUMMARY = "Waits until it is told to stop"
do_compile() {
    touch ${TOPDIR}/sleeping
    sleep 600
}
