#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void mount_kernel_fs(const char *type, const char *target)
{
    if (mount(type, target, type, 0, NULL) != 0 && errno != EBUSY)
        fprintf(stderr, "init: %s: %s\n", target, strerror(errno));
}

static void open_console(void)
{
    int fd = open(CONSOLE, O_RDWR | O_NOCTTY);

    if (fd < 0)
        return;
    for (int standard = 0; standard <= 2; standard++)
        dup2(fd, standard);
    if (fd > 2)
        close(fd);
}

static void set_hostname(void)
{
    char name[65] = "";
    FILE *file = fopen("/etc/hostname", "r");

    if (file == NULL)
        return;
    if (fgets(name, sizeof name, file) != NULL) {
        name[strcspn(name, "\n")] = '\0';
        if (sethostname(name, strlen(name)) != 0)
            perror("init: sethostname");
    }
    fclose(file);
}

static void run(const char *program)
{
    pid_t pid = fork();

    if (pid == 0) {
        execl(program, program, (char *)NULL);
        perror(program);
        _exit(127);
    }
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

int main(void)
{
    if (getpid() != 1) {
        fputs("init: only as the first process of an image\n", stderr);
        return 1;
    }
    mount_kernel_fs("devtmpfs", "/dev");
    mount_kernel_fs("proc", "/proc");
    mount_kernel_fs("sysfs", "/sys");
    open_console();
    set_hostname();
    run("/usr/bin/hello");
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}
