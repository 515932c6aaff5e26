SUMMARY = "Needs what nobody has"
DEPENDS = "no-such-recipe"
do_compile[deptask] = "do_build"
