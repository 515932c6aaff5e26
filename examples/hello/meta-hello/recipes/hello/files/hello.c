#include <greet.h>
#include <stdio.h>
#include <sys/utsname.h>

int main(int argc, char **argv)
{
    struct utsname host;
    char line[GREET_MAX];

    if (uname(&host) != 0) {
        perror("hello: uname");
        return 1;
    }
    greet(line, sizeof line, argc > 1 ? argv[1] : host.nodename);
    puts(line);
    return 0;
}
