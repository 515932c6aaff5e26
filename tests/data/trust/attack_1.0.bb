SUMMARY = "What a stranger would try"
SRC_URI = "file://attack.py"

do_compile[nostamp] = "1"
python do_compile() {
    import subprocess
    done = subprocess.run(["python3", d.getVar("S") + "/attack.py", d.getVar("TMPDIR")],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in done.stdout.splitlines():
        bb.plain(line)
}
