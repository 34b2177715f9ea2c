/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel as a 64-bit ELF file: its PT_LOAD segments go to their physical
 * addresses. Each header is read from the file once, checked in the copy and
 * used from it; the segments together may not be larger than the RAM, which
 * bounds the work that a file can cause.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "monitor/boot/parts.h"
#include "monitor/boot/pvh.h"
#include "monitor/layout.h"

#define MAX_SEGMENTS   64u
#define MAX_NOTE_BYTES 65536u

static int check_header(const Elf64_Ehdr *eh, const struct boot_options *o, struct vm_error *error)
{
    if (eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_ident[EI_DATA] != ELFDATA2LSB || eh->e_machine != EM_X86_64)
        return vm_fail(error, -ENOEXEC,
                "kernel %s: ELF file for another machine (class %u, data %u, machine %u); give a 64-bit x86 vmlinux",
                o->kernel_path, eh->e_ident[EI_CLASS], eh->e_ident[EI_DATA], eh->e_machine);
    if (eh->e_type != ET_EXEC)
        return vm_fail(error, -ENOEXEC,
                "kernel %s: ELF file of type %u, not a kernel (type 2); give a vmlinux or bzImage", o->kernel_path,
                eh->e_type);
    if (eh->e_phentsize != sizeof(Elf64_Phdr) || eh->e_phnum == 0 || eh->e_phnum > MAX_SEGMENTS)
        return vm_fail(error, -ENOEXEC,
                "kernel %s: not a loadable ELF file (%u program headers of %u bytes; 1 to %u of %zu are supported)",
                o->kernel_path, eh->e_phnum, eh->e_phentsize, MAX_SEGMENTS, sizeof(Elf64_Phdr));
    return 0;
}

/* Looks for the PVH entry in one PT_NOTE segment and leaves *ret alone when there is none. */
static int find_pvh_entry(uint64_t *ret, const Elf64_Phdr *ph, const struct boot_options *o, struct vm_error *error)
{
    uint64_t align = ph->p_align == 8 ? 8 : 4, at = 0, end;

    if (ph->p_filesz > MAX_NOTE_BYTES || add_overflows(ph->p_offset, ph->p_filesz, &end))
        return vm_fail(error, -ENOEXEC, "kernel %s: damaged: note segment of %llu bytes at %llu (at most %u)",
                o->kernel_path, (unsigned long long)ph->p_filesz, (unsigned long long)ph->p_offset, MAX_NOTE_BYTES);
    while (ph->p_filesz - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        uint64_t desc, next, value = 0;
        char name[sizeof(PVH_NOTE_NAME)] = "";
        int r = file_read(o->kernel_fd, ph->p_offset + at, &note, sizeof(note));

        if (r < 0)
            return kernel_cut(o, error, r, "note segment", end);
        /* Three 32-bit values and a small offset can't wrap 64 bits. */
        desc = (at + sizeof(note) + note.n_namesz + align - 1) & ~(align - 1);
        next = (desc + note.n_descsz + align - 1) & ~(align - 1);
        if (desc > ph->p_filesz || note.n_descsz > ph->p_filesz - desc)
            return vm_fail(error, -ENOEXEC, "kernel %s: damaged: the note at byte %llu is longer than its segment",
                    o->kernel_path, (unsigned long long)ph->p_offset + at);
        if (note.n_type == PVH_NOTE_ENTRY && note.n_namesz == sizeof(name) &&
                (note.n_descsz == 4 || note.n_descsz == 8)) {
            r = file_read(o->kernel_fd, ph->p_offset + at + sizeof(note), name, sizeof(name));
            if (r == 0)
                r = file_read(o->kernel_fd, ph->p_offset + desc, &value, note.n_descsz);
            if (r < 0)
                return kernel_cut(o, error, r, "note segment", end);
            if (memcmp(name, PVH_NOTE_NAME, sizeof(name)) == 0) {
                *ret = value;
                return 0;
            }
        }
        if (next >= ph->p_filesz)
            break;
        at = next;
    }
    return 0;
}

static int load_segment(const Elf64_Phdr *ph, size_t i, const struct boot_options *o, struct vm_error *error)
{
    uint64_t end;
    int r;

    if (ph->p_filesz > ph->p_memsz || add_overflows(ph->p_offset, ph->p_filesz, &end))
        return vm_fail(error, -ENOEXEC, "kernel %s: damaged: segment %zu has %llu bytes at %llu for %llu of memory",
                o->kernel_path, i, (unsigned long long)ph->p_filesz, (unsigned long long)ph->p_offset,
                (unsigned long long)ph->p_memsz);
    if (!kernel_fits(o, ph->p_paddr, ph->p_memsz))
        return kernel_misplaced(o, error, ph->p_paddr, ph->p_memsz);
    r = file_load(o->kernel_fd, ph->p_offset, o->mem, ph->p_paddr, ph->p_filesz);
    return r < 0 ? kernel_cut(o, error, r, "segment", end) : 0;
}

static bool inside_segment(const Elf64_Phdr *ph, size_t count, uint64_t at)
{
    for (size_t i = 0; i < count; i++) {
        if (ph[i].p_type == PT_LOAD && at >= ph[i].p_paddr && at - ph[i].p_paddr < ph[i].p_memsz)
            return true;
    }
    return false;
}

int elf_load(struct boot_image *ret, const struct boot_options *o, struct vm_error *error)
{
    struct boot_image image = {.initrd_limit = LAYOUT_GAP_START};
    uint64_t total = 0, pvh = UINT64_MAX, table_end;
    Elf64_Phdr ph[MAX_SEGMENTS];
    Elf64_Ehdr eh;
    int r = file_read(o->kernel_fd, 0, &eh, sizeof(eh));

    if (r < 0)
        return kernel_cut(o, error, r, "ELF header", sizeof(eh));
    r = check_header(&eh, o, error);
    if (r < 0)
        return r;
    if (add_overflows(eh.e_phoff, eh.e_phnum * sizeof(*ph), &table_end))
        table_end = UINT64_MAX;
    r = file_read(o->kernel_fd, eh.e_phoff, ph, eh.e_phnum * sizeof(*ph));
    if (r < 0)
        return kernel_cut(o, error, r, "program header table", table_end);

    for (size_t i = 0; i < eh.e_phnum; i++) {
        if (ph[i].p_type == PT_NOTE && pvh == UINT64_MAX) {
            r = find_pvh_entry(&pvh, &ph[i], o, error);
        } else if (ph[i].p_type == PT_LOAD && ph[i].p_memsz > 0) {
            if (add_overflows(total, ph[i].p_memsz, &total) || total > o->ram_bytes)
                return kernel_misplaced(o, error, ph[i].p_paddr, ph[i].p_memsz);
            r = load_segment(&ph[i], i, o, error);
            if (r == 0 && ph[i].p_paddr < LAYOUT_GAP_START)
                image.low_end = MAX(image.low_end, ph[i].p_paddr + ph[i].p_memsz);
        }
        if (r < 0)
            return r;
    }
    if (pvh != UINT64_MAX)
        image.entry = (struct boot_entry){.protocol = BOOT_PVH, .rip = pvh, .params = LAYOUT_PVH_INFO};
    else
        image.entry = (struct boot_entry){.protocol = BOOT_LINUX64, .rip = eh.e_entry, .params = LAYOUT_ZERO_PAGE};
    if (image.entry.rip >= LAYOUT_GAP_START || !inside_segment(ph, eh.e_phnum, image.entry.rip))
        return vm_fail(error, -ENOEXEC,
                "kernel %s: its %sentry point 0x%llx is outside of its segments; not a kernel for this monitor",
                o->kernel_path, pvh != UINT64_MAX ? "PVH " : "", (unsigned long long)image.entry.rip);
    *ret = image;
    return 0;
}
