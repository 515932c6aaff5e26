# Shared state: the output of a task is kept in SSTATE_DIR under the hash of all that went into it.
#
# A task that names itself in SSTATETASKS says what it made in its flag `sstate-inputdir`, and where
# that belongs in `sstate-outputdir`. The next build with the same hash, here or on another host
# with the same SSTATE_DIR, takes the object instead of running the task and all tasks before it.

SSTATETASKS ??= ""
SSTATE_VERSION = "1"
SSTATE_SPEC = "sstate:${PN}:${PACKAGE_ARCH}:${PV}:${PR}::${SSTATE_VERSION}:"
SSTATE_MANIFESTS = "${TMPDIR}/sstate-control"
SSTATE_MIRRORS ?= ""

BB_HASHFILENAME = "${SSTATE_SPEC}"
BB_HASHCHECK_FUNCTION = "sstate_find_objects"
BB_SETSCENE_DEPVALID = "sstate_may_skip"

python () {
    if bb.data.inherits_class("sstate", d):
        for task in sorted(set(d.getVar("SSTATETASKS").split())):
            d.appendVarFlag(task, "postfuncs", " sstate_keep_output")
            d.setVarFlag(task + "_setscene", "dirs", "${T}")
            d.setVarFlag(task + "_setscene", "network", "1")
}

python sstate_keep_output() {
    task = "do_" + d.getVar("BB_CURRENTTASK")
    source = d.getVarFlag(task, "sstate-inputdir")
    sstate_publish(d, task, d.expand(source))
    sstate_store(d, task, d.expand(source))
}

addtask do_populate_sysroot_setscene
python do_populate_sysroot_setscene() {
    sstate_restore(d, "do_populate_sysroot")
}

def sstate_object(spec, unihash, task):
    """Path of an object below SSTATE_DIR, laid out as OE-Core does it."""
    name = "%s%s_%s.tgz" % (spec, unihash, task[len("do_"):])
    return os.path.join(unihash[:2], unihash[2:4], name)

def sstate_own_object(d, task):
    return sstate_object(d.getVar("SSTATE_SPEC"), d.getVar("BB_UNIHASH"), task)

def sstate_touch(path):
    """Mark an object as used, for whoever deletes the oldest ones; a read-only one stays as it is."""
    for name in (path, path + ".siginfo"):
        try:
            os.utime(name, follow_symlinks=False)
        except OSError:
            pass

def sstate_store(d, task, source):
    """Keep `source` as the task's object. Builds on one SSTATE_DIR may do so at the same time."""
    path = os.path.join(d.getVar("SSTATE_DIR"), sstate_own_object(d, task))
    if os.path.exists(path):
        sstate_touch(path)
        return
    try:
        bb.utils.mkdirhier(os.path.dirname(path))
        bb.siggen.dump_this_task(path + ".siginfo", d)
        unfinished = "%s.%s.%d" % (path, os.uname().nodename, os.getpid())
        try:
            sstate_write_archive(unfinished, source, int(d.getVar("SOURCE_DATE_EPOCH")))
            os.rename(unfinished, path)
        finally:
            bb.utils.remove(unfinished)
    except OSError as error:
        bb.fatal("The shared state directory can't take the result of %s (%s): make SSTATE_DIR = "
                 "\"%s\" writable, or give the build another one"
                 % (task, error, d.getVar("SSTATE_DIR")))

# What went into a task is kept for every task, so that a later build can say why it ran again.
addhandler sstate_keep_signature
sstate_keep_signature[eventmask] = "bb.build.TaskSucceeded"
python sstate_keep_signature() {
    task = e.data.getVar("BB_RUNTASK")
    if task.endswith("_setscene") or e.data.getVarFlag(task, "nostamp"):
        return
    path = os.path.join(e.data.getVar("SSTATE_DIR"), sstate_own_object(e.data, task) + ".siginfo")
    if not os.path.exists(path):
        try:
            bb.siggen.dump_this_task(path, e.data)
        except OSError as error:
            bb.debug(1, "no signature of %s is kept: %s" % (task, error))
}

def sstate_write_archive(path, source, mtime):
    """Pack a directory; the same content gives the same bytes."""
    import gzip, tarfile

    def normalise(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = mtime
        return entry

    with open(path, "xb") as file:
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            with tarfile.open(mode="w", fileobj=packed, format=tarfile.GNU_FORMAT) as archive:
                archive.add(source, arcname=".", filter=normalise)

def sstate_restore(d, task):
    """Put the object of `task` where the task would have put its output."""
    import shutil
    name = sstate_own_object(d, task)
    path = os.path.join(d.getVar("SSTATE_DIR"), name)
    if not os.path.exists(path):
        sstate_mirror_fetcher(d, name).download()
    unpacked = d.expand("${WORKDIR}/sstate-") + task
    shutil.rmtree(unpacked, ignore_errors=True)
    sstate_unpack(path, unpacked)
    sstate_publish(d, task, unpacked)
    shutil.rmtree(unpacked)
    sstate_touch(path)

def sstate_unpack(path, target):
    """Unpack an object. A damaged one is set aside, so that the next build does not find it."""
    import gzip, tarfile, zlib
    safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    try:
        with tarfile.open(path) as archive:
            archive.extractall(target, **safe)
    except (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error) as error:
        bb.warn("The shared state object %s is damaged: %s" % (path, error))
        try:
            os.rename(path, path + ".damaged")
        except OSError:
            bb.debug(1, "It stays where it is: this build may not write there")
        # BitBake then runs the task itself.
        raise bb.BBHandledException()

def sstate_manifest(d, task):
    return d.expand("${SSTATE_MANIFESTS}/${PACKAGE_ARCH}-${PN}.") + task[len("do_"):]

def sstate_unpublish(d, task):
    """Remove what an earlier run of the task put into its output directory."""
    manifest = sstate_manifest(d, task)
    if not os.path.exists(manifest):
        return
    with open(manifest) as lines:
        for path in lines.read().splitlines():
            bb.utils.remove(path)
    os.unlink(manifest)

def sstate_publish(d, task, source):
    """Copy `source` to the task's output directory, in place of what an earlier run left there."""
    import shutil
    target = d.getVarFlag(task, "sstate-outputdir")
    target = d.expand(target)
    sstate_unpublish(d, task)
    bb.utils.mkdirhier(target)
    written = []
    for folder, folders, files in os.walk(source):
        inside = os.path.normpath(os.path.join(target, os.path.relpath(folder, source)))
        bb.utils.mkdirhier(inside)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted(files + links):
            path = os.path.join(inside, name)
            if os.path.lexists(path):
                bb.fatal("%s: %s is there already, from another recipe" % (d.getVar("PN"), path))
            shutil.copy2(os.path.join(folder, name), path, follow_symlinks=False)
            written.append(path)
    manifest = sstate_manifest(d, task)
    bb.utils.mkdirhier(os.path.dirname(manifest))
    with open(manifest, "w") as lines:
        lines.writelines(path + "\n" for path in written)

def sstate_mirror_fetcher(d, name):
    """A fetcher that looks for an object in SSTATE_MIRRORS and puts it into SSTATE_DIR."""
    mirrored = bb.data.createCopy(d)
    mirrored.delVar("MIRRORS")
    if bb.utils.to_boolean(d.getVar("SSTATE_MIRROR_ALLOW_NETWORK")):
        mirrored.delVar("BB_NO_NETWORK")
    mirrored.setVar("PREMIRRORS", d.getVar("SSTATE_MIRRORS"))
    mirrored.setVar("FILESPATH", d.getVar("SSTATE_DIR"))
    mirrored.setVar("DL_DIR", d.getVar("SSTATE_DIR"))
    mirrored.setVar("SRC_URI", "file://" + name + ";downloadfilename=" + name)
    return bb.fetch2.Fetch([mirrored.getVar("SRC_URI")], mirrored)

def sstate_is_mirrored(d, name):
    if not d.getVar("SSTATE_MIRRORS"):
        return False
    try:
        sstate_mirror_fetcher(d, name).checkstatus()
    except bb.fetch2.BBFetchException:
        return False
    return True

def sstate_find_objects(sq_data, d, siginfo=False, currentcount=0, summary=True, **kwargs):
    """Say which of the wanted tasks have an object (BB_HASHCHECK_FUNCTION, bb/runqueue.py)."""
    local, mirrored = set(), set()
    for tid in sq_data["hash"]:
        task = bb.runqueue.taskname_from_tid(tid)
        name = sstate_object(sq_data["hashfn"][tid], sq_data["unihash"][tid], task)
        name += ".siginfo" if siginfo else ""
        path = os.path.join(d.getVar("SSTATE_DIR"), name)
        if os.path.exists(path):
            sstate_touch(path)
            local.add(tid)
        elif sstate_is_mirrored(d, name):
            mirrored.add(tid)
    if summary:
        sstate_report(len(sq_data["hash"]), len(local), len(mirrored), currentcount)
    return local | mirrored

def sstate_report(wanted, local, mirrored, current):
    found, total = local + mirrored, wanted + current
    match = 100 * found // wanted if wanted else 0
    complete = 100 * (found + current) // total if total else 0
    bb.plain("Sstate summary: Wanted %d Local %d Mirrors %d Missed %d Current %d (%d%% match, %d%% complete)"
             % (wanted, local, mirrored, wanted - found, current, match, complete))

def sstate_may_skip(task, taskdependees, notneeded, d, log=None):
    """Never skip an object: they are few, and a later change then finds all that it needs."""
    return False
