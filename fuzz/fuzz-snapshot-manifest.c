/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.json of a snapshot, with the record in it: what the parser takes must be written and taken again, with the
 * same bytes. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "orchestrator/snapshots/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct snapshot first, second;
    char *text, *again;

    if (snapshot_parse((const char *)data, size, "manifest.json", &first, NULL) < 0)
        return 0;
    text = snapshot_format(&first);
    if (text) {
        if (snapshot_parse(text, strlen(text), "manifest.json", &second, NULL) < 0)
            abort();
        again = snapshot_format(&second);
        if (!again || strcmp(text, again) != 0)
            abort();
        free(again);
        snapshot_deinit(&second);
    }
    free(text);
    snapshot_deinit(&first);
    return 0;
}
