SUMMARY = "Shows what it sees"
python do_compile() {
    bb.warn("greeting is %s" % d.getVar("GREETING"))
}
