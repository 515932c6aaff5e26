SUMMARY = "Fails, and says why"
do_compile() {
    echo "the compiler is on strike"
    exit 42
}
