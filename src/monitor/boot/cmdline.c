/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's command line: the user's words, and one for each virtio-mmio device (for kernels without ACPI). */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "monitor/boot/parts.h"

/* Where the kernel's own words end: at a word "--", behind which all is init's, or at the end. As the kernel reads
 * them, a double quote hides white space. */
static size_t kernel_part(const char *args)
{
    bool quoted = false, word_start = true;
    size_t i;

    for (i = 0; args[i]; i++) {
        if (word_start && args[i] == '-' && args[i + 1] == '-' &&
                (args[i + 2] == 0 || isspace((unsigned char)args[i + 2])))
            break;
        if (args[i] == '"')
            quoted = !quoted;
        word_start = !quoted && isspace((unsigned char)args[i]);
    }
    while (i > 0 && isspace((unsigned char)args[i - 1]))
        i--;
    return i;
}

static int append(char *to, size_t *used, const char *text, size_t len)
{
    if (len >= VM_MAX_CMDLINE - *used)
        return -E2BIG;
    memcpy(to + *used, text, len);
    *used += len;
    to[*used] = 0;
    return 0;
}

int cmdline_make(char *ret, const struct boot_options *o, struct vm_error *error)
{
    const char *args = o->cmdline ? o->cmdline : "";
    size_t used = 0, split = kernel_part(args);
    int r;

    ret[0] = 0;
    r = append(ret, &used, args, split);
    for (size_t i = 0; i < o->device_count && r == 0; i++) {
        const struct boot_device *d = &o->devices[i];
        char word[80];
        int n = snprintf(word, sizeof(word), "%svirtio_mmio.device=%lluK@0x%llx:%u", used > 0 ? " " : "",
                (unsigned long long)(d->size >> 10), (unsigned long long)d->base, d->irq);

        r = append(ret, &used, word, (size_t)n);
    }
    if (r == 0 && used > 0 && args[split] == '-') /* "--" was the first word */
        r = append(ret, &used, " ", 1);
    if (r == 0 && args[split])
        r = append(ret, &used, args + split, strlen(args + split));
    if (r < 0)
        return vm_fail(error, r,
                "kernel command line: its %zu bytes and the words for %zu devices make more than %u; shorten boot_args",
                strlen(args), o->device_count, VM_MAX_CMDLINE - 1);
    return 0;
}
