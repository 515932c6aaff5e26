SUMMARY = "Says that a shared object is damaged, so that somebody takes it away"

do_populate_sysroot[nostamp] = "1"
python do_populate_sysroot() {
    from pathlib import Path
    shared = Path("/smidr/shared/sstate")
    victim = min(shared.rglob("sstate:hello:*.tgz")).relative_to(shared)
    bb.fatal("sstate: unable to unpack /smidr/sstate/%s: it is corrupt" % victim)
}
