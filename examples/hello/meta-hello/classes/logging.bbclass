# Messages of shell tasks. Each goes to BitBake through the task's FIFO, and so to whoever watches;
# without a FIFO it goes to the log alone.

bbmessage() {
    if [ -p "${LOGFIFO}" ]; then
        printf '%b\0' "$*" > "${LOGFIFO}"
    else
        echo "$*"
    fi
}

bbplain() {
    bbmessage "bbplain $*"
}

bbnote() {
    bbmessage "bbnote $*"
}

bbwarn() {
    bbmessage "bbwarn $*"
}

bberror() {
    bbmessage "bberror $*"
}

bbfatal() {
    bbmessage "bbfatal $*"
    exit 1
}

die() {
    bbfatal "$*"
}
