/* A SQLite VFS between SQLite and the real one: it counts what reaches the
 * file system, and makes it fail on demand. */
#ifndef SLUICE_TESTS_VFS_SHIM_H
#define SLUICE_TESTS_VFS_SHIM_H

#include <stdbool.h>
#include <stdint.h>

enum vfs_shim_op {
    VFS_SHIM_READ,
    VFS_SHIM_WRITE,
    VFS_SHIM_SYNC,
    VFS_SHIM_TRUNCATE,
    VFS_SHIM_SHM_MAP,
    VFS_SHIM_OPS
};

struct vfs_shim {
    int64_t count[VFS_SHIM_OPS]; /* of all files */
    int64_t wal_syncs;
    bool wal_dirty; /* written since its last sync */
    /* Offsets in the WAL, -1: none. Of what was written since its last sync,
     * the first; and of what a failed sync may have kept from the disk for
     * ever, unless it is written again before the next one. */
    int64_t wal_written_from;
    int64_t wal_lost_from;
    /* The fail_at-th op of this kind from now on (1 = the next) answers
     * fail_code; with fail_on also all that follow. 0: none. */
    enum vfs_shim_op fail_op;
    int64_t fail_at;
    int fail_code;
    bool fail_on;
    bool failed; /* it has */
};

/* Make it SQLite's default, once, before the first database. The state is
 * the one of the process. */
struct vfs_shim *vfs_shim_install(void);

#endif
