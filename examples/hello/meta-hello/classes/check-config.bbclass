# Refuses a configuration that could only fail later, or build something else than was asked for.

addhandler check_config
check_config[eventmask] = "bb.event.ConfigParsed"
python check_config() {
    for kind in ("machine", "distro"):
        check_conf_file(d, kind)
    check_compiler(d)
}

def check_conf_file(d, kind):
    name = d.getVar(kind.upper()) or ""
    known = known_names(d, kind)
    if name not in known:
        bb.fatal("%s = \"%s\": no layer has conf/%s/%s.conf. Set it to one of: %s"
                 % (kind.upper(), name, kind, name, ", ".join(known)))

def known_names(d, kind):
    import glob
    names = set()
    for folder in d.getVar("BBPATH").split(":"):
        for path in glob.glob(os.path.join(folder, "conf", kind, "*.conf")):
            names.add(os.path.basename(path)[:-len(".conf")])
    return sorted(names)

def check_compiler(d):
    compiler = d.getVar("CC").split()[0]
    if not bb.utils.which(d.getVar("PATH"), compiler, executable=True):
        bb.fatal("MACHINE = \"%s\" is compiled with %s, which the builder image does not have. "
                 "On Debian it is in the package gcc on a host of that kind, else in gcc-%s."
                 % (d.getVar("MACHINE"), compiler, d.getVar("TARGET_SYS").replace("_", "-")))
