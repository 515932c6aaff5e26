SUMMARY = "A target program with a configuration file"
inherit local-source
do_compile() {
    ${CC} ${CFLAGS} ${LDFLAGS} -static -o sensor sensor.c
}
do_install() {
    install -D -m 0755 sensor ${D}${bindir}/sensor
    install -d ${D}${sysconfdir}
    echo "interval = 5" > ${D}${sysconfdir}/sensor.conf
}
INSANE_SKIP:${PN} += "already-stripped"
