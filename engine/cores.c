#include "engine/cores.h"
#include "engine/threads.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first line of a small file as up to two numbers; "max" is -1. Returns how many were read. */
static int read_numbers(const char *folder, const char *name, long long out[2])
{
    char path[2 * PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return 0;
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    char line[128];
    int n = 0;
    if (fgets(line, sizeof line, f)) {
        char *p = line;
        while (n < 2) {
            while (*p == ' ')
                p++;
            if (!strncmp(p, "max", 3)) {
                out[n++] = -1;
                p += 3;
                continue;
            }
            char *end;
            errno = 0;
            long long value = strtoll(p, &end, 10);
            if (end == p || errno)
                break;
            out[n++] = value;
            p = end;
        }
    }
    fclose(f);
    return n;
}

/* Quota of one group in cores, rounded up; 0: none. */
static int group_limit(const char *folder, bool v2)
{
    long long quota = 0, period = 0, n[2];
    if (v2) {
        if (read_numbers(folder, "cpu.max", n) != 2)
            return 0;
        quota = n[0];
        period = n[1];
    } else {
        if (read_numbers(folder, "cpu.cfs_quota_us", n) < 1)
            return 0;
        quota = n[0];
        if (read_numbers(folder, "cpu.cfs_period_us", n) < 1)
            return 0;
        period = n[0];
    }
    if (quota <= 0 || period <= 0)
        return 0;
    long long cores = quota / period + (quota % period != 0);
    return cores > INT_MAX ? INT_MAX : (int)cores;
}

/* True if a comma-separated list has the word. */
static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    while (*list) {
        size_t n = strcspn(list, ",");
        if (n == length && !strncmp(list, word, n))
            return true;
        list += n + (list[n] == ',');
    }
    return false;
}

/* The path of the process's group in the cpu hierarchy: version 2 ("0::/path") or version 1 ("4:cpu,cpuacct:/path"). */
static bool own_group(const char *cgroup, bool v2, char path[PATH_MAX])
{
    FILE *f = fopen(cgroup, "re");
    if (!f)
        return false;
    bool found = false;
    char *line = NULL;
    size_t size = 0;
    while (!found && getline(&line, &size, f) > 0) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *controllers++ = 0;
        *group++ = 0;
        found = v2 ? !*controllers && !strcmp(line, "0") : list_has(controllers, "cpu");
        if (found && snprintf(path, PATH_MAX, "%s", group) >= PATH_MAX)
            found = false;
    }
    free(line);
    fclose(f);
    return found;
}

/* mountinfo writes space, tab, newline and backslash as \040 and so on. */
static void unescape(char *s)
{
    char *to = s;
    while (*s) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
            *to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 4;
        } else {
            *to++ = *s++;
        }
    }
    *to = 0;
}

/* Where the hierarchy is mounted, and which group of it is the mount's root. */
static bool find_mount(const char *mountinfo, bool v2, char root[PATH_MAX], char point[PATH_MAX])
{
    FILE *f = fopen(mountinfo, "re");
    if (!f)
        return false;
    bool found = false;
    char *line = NULL;
    size_t size = 0;
    while (!found && getline(&line, &size, f) > 0) {
        line[strcspn(line, "\n")] = 0;
        /* id parent major:minor root point options [tags] - type source super-options */
        char *tail = strstr(line, " - ");
        if (!tail)
            continue;
        *tail = 0;
        char *save;
        char *type = strtok_r(tail + 3, " ", &save);
        strtok_r(NULL, " ", &save);
        char *super = strtok_r(NULL, " ", &save);
        if (!type || !super || strcmp(type, v2 ? "cgroup2" : "cgroup") != 0 || (!v2 && !list_has(super, "cpu")))
            continue;
        char *field = strtok_r(line, " ", &save);
        for (int i = 0; i < 3 && field; i++)
            field = strtok_r(NULL, " ", &save);
        char *place = field ? strtok_r(NULL, " ", &save) : NULL;
        if (!place)
            continue;
        unescape(field);
        unescape(place);
        found = snprintf(root, PATH_MAX, "%s", field) < PATH_MAX && snprintf(point, PATH_MAX, "%s", place) < PATH_MAX;
    }
    free(line);
    fclose(f);
    return found;
}

static int hierarchy_limit(const char *cgroup, const char *mountinfo, bool v2)
{
    char group[PATH_MAX], root[PATH_MAX], point[PATH_MAX], folder[2 * PATH_MAX];
    if (!own_group(cgroup, v2, group) || !find_mount(mountinfo, v2, root, point))
        return 0;
    /* In a container the mount's root may be the container's own group: the rest of the path is what can be seen below it. */
    const char *below = group;
    size_t n = strlen(root);
    if (n && root[n - 1] == '/')
        n--;
    if (n && !strncmp(group, root, n) && (group[n] == '/' || !group[n]))
        below = group + n;
    else if (n)
        below = "";
    if (!strcmp(below, "/"))
        below = "";
    if (strstr(below, "/..")) /* the group lies outside the visible tree */
        below = "";
    snprintf(folder, sizeof folder, "%s%s", point, below);
    size_t top = strlen(point);
    int limit = 0;
    for (;;) {
        int own = group_limit(folder, v2);
        if (own && (!limit || own < limit))
            limit = own;
        char *slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < top)
            return limit;
        *slash = 0;
    }
}

int cores_cgroup_limit(const char *cgroup, const char *mountinfo)
{
    int v2 = hierarchy_limit(cgroup, mountinfo, true);
    int v1 = hierarchy_limit(cgroup, mountinfo, false);
    return !v1 || (v2 && v2 < v1) ? v2 : v1;
}

static int affinity_cores(void)
{
    /* The kernel refuses masks smaller than its own: grow until it fits. */
    for (int n = 1024; n <= 1 << 20; n *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)n);
        if (!set)
            return 1;
        size_t size = CPU_ALLOC_SIZE((size_t)n);
        CPU_ZERO_S(size, set);
        int failed = sched_getaffinity(0, size, set);
        int count = failed ? 0 : CPU_COUNT_S(size, set);
        int reason = errno;
        CPU_FREE(set);
        if (!failed)
            return count > 0 ? count : 1;
        if (reason != EINVAL)
            return 1;
    }
    return 1;
}

int threads_usable_cores(void)
{
    int cores = affinity_cores();
    int limit = cores_cgroup_limit("/proc/self/cgroup", "/proc/self/mountinfo");
    return limit && limit < cores ? limit : cores;
}
