/* Tries what a sandboxed service should not be able to do, and what it must be able to do. Prints "NAME yes" or "NAME
 * no ERRNO-NAME" for each attempt; the reader knows what is right. Usage: sandbox-probe CACHE_FOLDER READABLE_FILE...
 * (a file it can read, and that it tries to write to) */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void report(const char *name, bool done)
{
    printf(done ? "%s yes\n" : "%s no %s\n", name, strerrorname_np(errno));
    fflush(stdout);
}

static bool can_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static bool can_socket(int family, int type)
{
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    char path[4096];
    snprintf(path, sizeof path, "%s/probe", argv[1]);
    report("write-cache", can_open(path, O_WRONLY | O_CREAT));
    unlink(path);
    for (int i = 2; i < argc; i++) {
        report("read-file", can_open(argv[i], O_RDONLY));
        report("write-file", can_open(argv[i], O_WRONLY));
    }
    report("write-etc", can_open("/etc/quern-probe", O_WRONLY | O_CREAT));
    report("write-usr", can_open("/usr/quern-probe", O_WRONLY | O_CREAT));
    report("read-home", can_open("/root/.", O_RDONLY) && can_open("/root/.bashrc", O_RDONLY));
    report("open-kmsg", can_open("/dev/kmsg", O_RDONLY));
    report("open-mem", can_open("/dev/mem", O_RDONLY));

    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *wx = mmap(NULL, page, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    report("map-write-execute", wx != MAP_FAILED);
    void *rw = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    report("map-write", rw != MAP_FAILED);
    report("make-executable", mprotect(rw, page, PROT_READ | PROT_EXEC) == 0);
    report("lock-memory", mlock(rw, page) == 0);

    report("inet", can_socket(AF_INET, SOCK_STREAM));
    report("unix", can_socket(AF_UNIX, SOCK_DGRAM));
    report("netlink", can_socket(AF_NETLINK, SOCK_RAW));
    report("packet", can_socket(AF_PACKET, SOCK_RAW));
    report("vsock", can_socket(AF_VSOCK, SOCK_STREAM));

    report("new-user-namespace", unshare(CLONE_NEWUSER) == 0);
    report("new-mount-namespace", unshare(CLONE_NEWNS) == 0);
    report("mount", mount("none", "/tmp", "tmpfs", 0, NULL) == 0);
    report("chroot", chroot("/tmp") == 0);
    report("set-user", setuid(0) == 0);
    report("set-personality", personality(ADDR_NO_RANDOMIZE) != -1);
    report("add-key", syscall(SYS_add_key, "user", "probe", "x", 1, KEY_SPEC_PROCESS_KEYRING) != -1);
    report("trace", ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    report("read-init", can_open("/proc/1/environ", O_RDONLY));
    report("run-set-user-id", chmod(argv[1], 04700) == 0);
    return 0;
}
