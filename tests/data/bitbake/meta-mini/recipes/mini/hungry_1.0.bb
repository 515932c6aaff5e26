SUMMARY = "Wants more memory than there is"
do_compile() {
    python3 -c 'print(len(bytearray(1 << 30)))'
}
