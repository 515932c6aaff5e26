SUMMARY = "Does not compile"
inherit local-source native
FILESEXTRAPATHS:prepend := "${THISDIR}/../greeter/greeter:"
do_compile() {
    echo 'int main(void) { return missing_symbol; }' > broken.c
    ${CC} -o broken broken.c
}
