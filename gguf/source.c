#include "gguf/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static bool read_all(int fd, unsigned char *to, size_t size, const char *label, struct error *err)
{
    const size_t chunk = (size_t)64 << 20; /* one read() moves less than 2 GiB on Linux anyway */
    size_t done = 0;

    while (done < size) {
        size_t want = size - done < chunk ? size - done : chunk;
        ssize_t got = read(fd, to + done, want);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, "%s: cannot read at byte %zu: %s", label, done, strerror(errno));
        if (got == 0)
            return error_set(
                err, "%s: became shorter while it was read: it had %zu bytes, now it ends at byte %zu", label, size, done);
        done += (size_t)got;
    }
    return true;
}

static bool check_kind(const struct stat *st, const char *label, struct error *err)
{
    if (S_ISDIR(st->st_mode))
        return error_set(err, "%s: is a directory, not a model file", label);
    if (S_ISFIFO(st->st_mode))
        return error_set(err, "%s: is a pipe; a model must be a regular file", label);
    if (!S_ISREG(st->st_mode))
        return error_set(err, "%s: is not a regular file", label);
    if (st->st_size == 0)
        return error_set(err, "%s: is empty (0 bytes); fetch the model again", label);
    if ((uintmax_t)st->st_size > SIZE_MAX / 2)
        return error_set(err, "%s: is too large for this machine's address space", label);
    return true;
}

bool gguf_source_open(struct gguf_source *source, const char *path, const char *label, bool no_mmap, struct error *err)
{
    memset(source, 0, sizeof *source);
    if (path[0] == '\0')
        return error_set(err, "the name of the model file is empty");

    /* O_NONBLOCK: opening a pipe that nobody writes to must not wait; for regular files it means nothing. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        int why = errno;
        if (why == ENOENT)
            return error_set(err, "%s: there is no such file", label);
        if (why == EACCES)
            return error_set(err, "%s: permission denied; user id %u may not read it", label, (unsigned)geteuid());
        return error_set(err, "%s: cannot open: %s", label, strerror(why));
    }

    struct stat st;
    bool ok = fstat(fd, &st) == 0 ? check_kind(&st, label, err) : error_set(err, "%s: cannot stat: %s", label, strerror(errno));
    if (!ok) {
        close(fd);
        return false;
    }

    size_t size = (size_t)st.st_size;
    void *data = no_mmap ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                         : mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        error_set(
            err, "%s: cannot %s %zu bytes: %s", label, no_mmap ? "reserve memory for its" : "map its", size, strerror(errno));
        close(fd);
        return false;
    }
    source->data = data;
    source->size = size;
    source->owned = true;
    source->refetch = !no_mmap;
    if (no_mmap) {
        ok = read_all(fd, data, size, label, err);
        if (ok)
            mprotect(data, size, PROT_READ); /* as with a mapping, nobody writes to a model by accident */
    }
    close(fd);
    if (!ok)
        gguf_source_close(source);
    return ok;
}

bool gguf_source_lock(struct gguf_source *source, const char *label, struct error *err)
{
    if (mlock(source->data, source->size) == 0) {
        source->locked = true;
        return true;
    }
    int why = errno;
    struct rlimit limit;
    if ((why == ENOMEM || why == EPERM || why == EAGAIN) && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
        limit.rlim_cur != RLIM_INFINITY)
        return error_set(err,
            "%s: cannot lock %zu bytes into memory (%s): the limit RLIMIT_MEMLOCK is %ju bytes; raise it (ulimit -l, "
            "LimitMEMLOCK= in a systemd unit) or run without locking",
            label, source->size, strerror(why), (uintmax_t)limit.rlim_cur);
    return error_set(err,
        "%s: cannot lock %zu bytes into memory: %s (RLIMIT_MEMLOCK is not what stops it; is there enough free memory?)", label,
        source->size, strerror(why));
}

/* Shrinks [*from, *to) to whole pages inside it, or widens it to the pages that touch it. False when nothing is left. */
static bool whole_pages(uintptr_t *from, uintptr_t *to, bool widen)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

    if (widen) {
        *from &= ~(page - 1);
    } else {
        *from = (*from + page - 1) & ~(page - 1);
        *to &= ~(page - 1);
    }
    return *from < *to;
}

void gguf_source_release(const struct gguf_source *source, const unsigned char *data, size_t length)
{
    uintptr_t from = (uintptr_t)data, to = from + length;

    if (source->locked || !whole_pages(&from, &to, false))
        return;
    madvise((void *)from, to - from, MADV_DONTNEED);
}

void gguf_source_prefetch(const struct gguf_source *source, const unsigned char *data, size_t length)
{
    uintptr_t from = (uintptr_t)data, to = from + length;

    if (!source->owned || source->locked || !whole_pages(&from, &to, true))
        return;
    madvise((void *)from, to - from, MADV_WILLNEED);
}

void gguf_source_close(struct gguf_source *source)
{
    if (source->owned)
        munmap((void *)(uintptr_t)source->data, source->size);
    memset(source, 0, sizeof *source);
}
