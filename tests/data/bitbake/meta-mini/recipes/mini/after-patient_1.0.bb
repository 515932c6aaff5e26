SUMMARY = "Must not start after a cancel"
do_compile[depends] = "patient:do_compile"
