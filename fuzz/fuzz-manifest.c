/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.json: what the parser takes must be written and taken again, with the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "orchestrator/images/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct manifest first = {0}, second = {0};
    char *text = NULL, *again = NULL;
    size_t len, again_len;

    if (manifest_parse((const char *)data, size, "manifest.json", &first, NULL) < 0)
        return 0;
    if (manifest_format(&first, &text, &len, NULL) == 0) {
        if (manifest_parse(text, len, "manifest.json", &second, NULL) < 0 ||
                manifest_format(&second, &again, &again_len, NULL) < 0 || len != again_len ||
                memcmp(text, again, len) != 0)
            abort();
    }
    free(text);
    free(again);
    manifest_deinit(&first);
    manifest_deinit(&second);
    return 0;
}
