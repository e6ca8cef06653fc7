/* How many cores this process may use, as the system's limits say. threads_usable_cores (engine/threads.h) is the answer callers
 * want; what stands here is the part that reads control groups, apart so that it can be tried on any files. */
#ifndef QUERN_CORES_H
#define QUERN_CORES_H

/* The CPU quota of a process's control group and all groups above it that can be seen,
 * in cores, rounded up; 0 when there is no limit.
 * cgroup: a file like /proc/self/cgroup. mountinfo: a file like /proc/self/mountinfo, which tells where the group files are.
 * Knows version 2 (cpu.max) and version 1 (cpu.cfs_quota_us, cpu.cfs_period_us),
 * also both at once. What cannot be read limits nothing.
 * Sources: the Linux kernel's documentation, admin-guide/cgroup-v2 and scheduler/sched-bwc; proc(5) for the two files. */
int cores_cgroup_limit(const char *cgroup, const char *mountinfo);

#endif
