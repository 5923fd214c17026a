/* A counting and failing VFS. */
#include "tests/shared/vfs_shim.h"

#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>

struct shim_file {
    sqlite3_file base;
    bool wal;
    sqlite3_file *real; /* behind this struct */
};

static struct vfs_shim shim = {.wal_written_from = -1, .wal_lost_from = -1};
static sqlite3_vfs *real_vfs;

/* Count an op; the code it must fail with, or SQLITE_OK. */
static int
op(enum vfs_shim_op kind)
{
    shim.count[kind]++;
    if (shim.fail_at == 0 || shim.fail_op != kind) {
        return SQLITE_OK;
    }
    if (shim.fail_at > 1) {
        shim.fail_at--;
        return SQLITE_OK;
    }
    if (!shim.fail_on) {
        shim.fail_at = 0;
    }
    shim.failed = true;
    return shim.fail_code;
}

static struct shim_file *
of(sqlite3_file *file)
{
    return (struct shim_file *)(void *)file;
}

static int
shim_close(sqlite3_file *file)
{
    sqlite3_file *real = of(file)->real;

    return real->pMethods != NULL ? real->pMethods->xClose(real) : SQLITE_OK;
}

static int
shim_read(sqlite3_file *file, void *data, int bytes, sqlite3_int64 at)
{
    sqlite3_file *real = of(file)->real;
    int code = op(VFS_SHIM_READ);

    return code != SQLITE_OK ? code
                             : real->pMethods->xRead(real, data, bytes, at);
}

static int
shim_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 at)
{
    sqlite3_file *real = of(file)->real;
    int code = op(VFS_SHIM_WRITE);

    shim.wal_dirty = shim.wal_dirty || of(file)->wal;
    if (of(file)->wal &&
        (shim.wal_written_from < 0 || at < shim.wal_written_from)) {
        shim.wal_written_from = at;
    }
    return code != SQLITE_OK ? code
                             : real->pMethods->xWrite(real, data, bytes, at);
}

static int
shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    sqlite3_file *real = of(file)->real;
    int code = op(VFS_SHIM_TRUNCATE);

    return code != SQLITE_OK ? code : real->pMethods->xTruncate(real, size);
}

/* A failed sync marks the pages clean: only what is written again is synced by
 * the next one. */
static void
note_wal_sync(bool good)
{
    if (!good && shim.wal_lost_from < 0) {
        shim.wal_lost_from = shim.wal_written_from;
    } else if (good && shim.wal_written_from >= 0 &&
               shim.wal_written_from <= shim.wal_lost_from) {
        shim.wal_lost_from = -1;
    }
    shim.wal_written_from = -1;
}

static int
shim_sync(sqlite3_file *file, int flags)
{
    sqlite3_file *real = of(file)->real;
    int code = op(VFS_SHIM_SYNC);

    if (of(file)->wal) {
        note_wal_sync(code == SQLITE_OK);
    }
    if (code == SQLITE_OK && of(file)->wal) {
        shim.wal_syncs++;
        shim.wal_dirty = false;
    }
    return code != SQLITE_OK ? code : real->pMethods->xSync(real, flags);
}

static int
shim_file_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return of(file)->real->pMethods->xFileSize(of(file)->real, size);
}

static int
shim_lock(sqlite3_file *file, int level)
{
    return of(file)->real->pMethods->xLock(of(file)->real, level);
}

static int
shim_unlock(sqlite3_file *file, int level)
{
    return of(file)->real->pMethods->xUnlock(of(file)->real, level);
}

static int
shim_check_lock(sqlite3_file *file, int *out)
{
    return of(file)->real->pMethods->xCheckReservedLock(of(file)->real, out);
}

static int
shim_control(sqlite3_file *file, int what, void *arg)
{
    return of(file)->real->pMethods->xFileControl(of(file)->real, what, arg);
}

static int
shim_sector(sqlite3_file *file)
{
    return of(file)->real->pMethods->xSectorSize(of(file)->real);
}

static int
shim_device(sqlite3_file *file)
{
    return of(file)->real->pMethods->xDeviceCharacteristics(of(file)->real);
}

static int
shim_shm_map(sqlite3_file *file, int page, int bytes, int extend,
             void volatile **out)
{
    sqlite3_file *real = of(file)->real;
    int code = op(VFS_SHIM_SHM_MAP);

    return code != SQLITE_OK
               ? code
               : real->pMethods->xShmMap(real, page, bytes, extend, out);
}

static int
shim_shm_lock(sqlite3_file *file, int at, int n, int flags)
{
    return of(file)->real->pMethods->xShmLock(of(file)->real, at, n, flags);
}

static void
shim_shm_barrier(sqlite3_file *file)
{
    of(file)->real->pMethods->xShmBarrier(of(file)->real);
}

static int
shim_shm_unmap(sqlite3_file *file, int delete)
{
    return of(file)->real->pMethods->xShmUnmap(of(file)->real, delete);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2, /* with shared memory, without mmap */
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_file_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_check_lock,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector,
    .xDeviceCharacteristics = shim_device,
    .xShmMap = shim_shm_map,
    .xShmLock = shim_shm_lock,
    .xShmBarrier = shim_shm_barrier,
    .xShmUnmap = shim_shm_unmap,
};

static int
shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
          int *flags_out)
{
    struct shim_file *f = of(file);
    int code;

    (void)vfs;
    f->wal = (flags & SQLITE_OPEN_WAL) != 0;
    f->real = (sqlite3_file *)(void *)(f + 1);
    memset(f->real, 0, (size_t)real_vfs->szOsFile);
    code = real_vfs->xOpen(real_vfs, name, f->real, flags, flags_out);
    f->base.pMethods = f->real->pMethods != NULL ? &methods : NULL;
    return code;
}

struct vfs_shim *
vfs_shim_install(void)
{
    static sqlite3_vfs vfs;

    if (real_vfs == NULL) {
        real_vfs = sqlite3_vfs_find(NULL);
        if (real_vfs == NULL) {
            abort();
        }
        vfs = *real_vfs; /* what is not about a file is the real one's */
        vfs.pNext = NULL;
        vfs.zName = "shim";
        vfs.szOsFile += (int)sizeof(struct shim_file);
        vfs.xOpen = shim_open;
        if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK) {
            abort();
        }
    }
    return &shim;
}
