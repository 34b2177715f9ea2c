/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/modules.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <string.h>

#include "base/fd.h"

#define MODULE_BYTES_MAX  ((size_t)64 << 20)
#define BUILTIN_BYTES_MAX ((size_t)4 << 20)
#define DEPTH_MAX         32
#define MODULES_MAX       256

struct resolver {
    struct strlist files;   /* every .ko below the directory */
    struct strlist builtin; /* names, with '_' */
    struct strlist *order;
};

/* "kernel/fs/erofs/erofs.ko" -> "erofs", with '_' for '-'. */
static void module_name(const char *path, char *ret, size_t size)
{
    const char *base = strrchr(path, '/');
    size_t n = 0;

    base = base ? base + 1 : path;
    for (; *base && *base != '.' && n + 1 < size; base++)
        ret[n++] = *base == '-' ? '_' : *base;
    ret[n] = '\0';
}

static bool section_bytes(const uint8_t *ko, size_t len, const Elf64_Shdr *shdr, const char **ret)
{
    if (shdr->sh_offset > len || shdr->sh_size > len - shdr->sh_offset)
        return false;
    *ret = (const char *)ko + shdr->sh_offset;
    return true;
}

/* The bytes of .modinfo: NUL-separated "key=value". */
static bool find_modinfo(const uint8_t *ko, size_t len, const char **ret, size_t *ret_len)
{
    Elf64_Ehdr ehdr;
    Elf64_Shdr shdr, names;
    const char *strings;

    if (len < sizeof(ehdr))
        return false;
    memcpy(&ehdr, ko, sizeof(ehdr));
    if (memcmp(ehdr.e_ident, ELFMAG, SELFMAG) != 0 || ehdr.e_ident[EI_CLASS] != ELFCLASS64 ||
            ehdr.e_shentsize != sizeof(shdr) || ehdr.e_shoff > len ||
            (uint64_t)ehdr.e_shnum * sizeof(shdr) > len - ehdr.e_shoff || ehdr.e_shstrndx >= ehdr.e_shnum)
        return false;
    memcpy(&names, ko + ehdr.e_shoff + ehdr.e_shstrndx * sizeof(shdr), sizeof(names));
    if (!section_bytes(ko, len, &names, &strings))
        return false;
    for (unsigned i = 0; i < ehdr.e_shnum; i++) {
        memcpy(&shdr, ko + ehdr.e_shoff + i * sizeof(shdr), sizeof(shdr));
        if (shdr.sh_name >= names.sh_size || names.sh_size - shdr.sh_name < sizeof(".modinfo") ||
                memcmp(strings + shdr.sh_name, ".modinfo", sizeof(".modinfo")) != 0)
            continue;
        if (!section_bytes(ko, len, &shdr, ret))
            return false;
        *ret_len = shdr.sh_size;
        return true;
    }
    return false;
}

static int split_names(const char *value, size_t len, struct strlist *ret, struct ic_error *error)
{
    for (size_t start = 0; start < len;) {
        const char *comma = memchr(value + start, ',', len - start);
        size_t n = comma ? (size_t)(comma - value) - start : len - start;
        char name[64];

        if (n > 0 && n < sizeof(name)) {
            memcpy(name, value + start, n);
            name[n] = '\0';
            int r = strlist_add(ret, name, error);
            if (r < 0)
                return r;
        }
        start += n + 1;
    }
    return 0;
}

/* Behind the module: the signature, 12 bytes of which the last 4 are its length in big-endian, and the mark. */
#define SIGNATURE_MARK      "~Module signature appended~\n"
#define SIGNATURE_INFO_SIZE 12u

size_t module_unsigned_len(const void *ko, size_t len)
{
    const size_t mark = sizeof(SIGNATURE_MARK) - 1;
    const uint8_t *size;
    size_t left, signature;

    if (len < mark + SIGNATURE_INFO_SIZE || memcmp((const uint8_t *)ko + len - mark, SIGNATURE_MARK, mark) != 0)
        return len;
    left = len - mark - SIGNATURE_INFO_SIZE;
    size = (const uint8_t *)ko + left + SIGNATURE_INFO_SIZE - 4;
    signature = (size_t)size[0] << 24 | (size_t)size[1] << 16 | (size_t)size[2] << 8 | size[3];
    return signature < left ? left - signature : len;
}

int module_depends(const void *ko, size_t len, const char *name, struct strlist *ret, struct ic_error *error)
{
    static const char key[] = "depends=";
    const char *info;
    size_t info_len;

    if (!find_modinfo(ko, len, &info, &info_len))
        return ic_fail(error, IC_ERR_CORRUPT, "%s: not a kernel module", name);
    while (info_len > 0) {
        size_t n = strnlen(info, info_len);

        if (n >= sizeof(key) - 1 && memcmp(info, key, sizeof(key) - 1) == 0)
            return split_names(info + sizeof(key) - 1, n - (sizeof(key) - 1), ret, error);
        n = MIN(n + 1, info_len);
        info += n;
        info_len -= n;
    }
    return ic_fail(error, IC_ERR_CORRUPT, "%s: a kernel module without a list of what it needs", name);
}

static int list_files(const char *dir, struct strlist *ret, struct ic_error *error)
{
    char *roots[] = {(char *)dir, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
    int r = 0;

    if (!fts)
        return ic_fail_errno(error, -errno, "%s", dir);
    for (FTSENT *entry; r == 0 && (entry = fts_read(fts));) {
        if (entry->fts_info == FTS_F && entry->fts_namelen > 3 &&
                strcmp(entry->fts_name + entry->fts_namelen - 3, ".ko") == 0)
            r = strlist_add(ret, entry->fts_path, error);
    }
    (void)fts_close(fts);
    return r;
}

static int list_builtin(const char *dir, struct strlist *ret, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *text = NULL;
    char *save = NULL;
    int r = text_format(&path, error, "%s/modules.builtin", dir);

    if (r < 0)
        return r;
    r = fd_read_file(AT_FDCWD, path, BUILTIN_BYTES_MAX, &text, NULL);
    if (r < 0)
        return ic_fail_errno(error, r, "%s", path);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char name[64];

        module_name(line, name, sizeof(name));
        r = strlist_add(ret, name, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static const char *file_of(const struct strlist *files, const char *wanted)
{
    char name[64], other[64];

    module_name(wanted, name, sizeof(name));
    for (size_t i = 0; i < files->count; i++) {
        module_name(files->items[i], other, sizeof(other));
        if (strcmp(name, other) == 0)
            return files->items[i];
    }
    return NULL;
}

static bool is_builtin(const struct resolver *resolver, const char *wanted)
{
    char name[64];

    module_name(wanted, name, sizeof(name));
    return strlist_has(&resolver->builtin, name);
}

/* Depth first; the depth is bounded because the modules' own lists are foreign input and may go in circles. */
static int resolve_one(struct resolver *resolver, const char *wanted, unsigned depth, struct ic_error *error)
{
    _cleanup_(strlist_deinit) struct strlist depends = {0};
    _cleanup_(freep) char *ko = NULL;
    const char *file;
    size_t len;
    int r;

    if (is_builtin(resolver, wanted))
        return 0;
    file = file_of(&resolver->files, wanted);
    if (!file)
        return ic_fail(error, IC_ERR_NOT_FOUND, "the kernel has no module '%s'", wanted);
    if (strlist_has(resolver->order, file))
        return 0;
    if (depth > DEPTH_MAX || resolver->order->count >= MODULES_MAX)
        return ic_fail(error, IC_ERR_CORRUPT, "module '%s': needs too many modules", wanted);
    r = fd_read_file(AT_FDCWD, file, MODULE_BYTES_MAX, &ko, &len);
    if (r < 0)
        return ic_fail_errno(error, r, "%s", file);
    r = module_depends(ko, len, file, &depends, error);
    for (size_t i = 0; r == 0 && i < depends.count; i++)
        r = resolve_one(resolver, depends.items[i], depth + 1, error);
    return r < 0 ? r : strlist_add(resolver->order, file, error);
}

int modules_resolve(const char *dir, const struct strlist *wanted, struct strlist *ret, struct ic_error *error)
{
    struct resolver resolver = {.order = ret};
    int r = list_files(dir, &resolver.files, error);

    if (r == 0)
        r = list_builtin(dir, &resolver.builtin, error);
    for (size_t i = 0; r == 0 && i < wanted->count; i++)
        r = resolve_one(&resolver, wanted->items[i], 0, error);
    strlist_deinit(&resolver.files);
    strlist_deinit(&resolver.builtin);
    return r;
}
