/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of a monitor's API. A whole answer lies inside the input and is the same when it comes byte by byte. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "orchestrator/backends/fcapi.h"
#include "orchestrator/backends/http.h"

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void fault(const struct http_response *response)
{
    char text[128];

    (void)fcapi_fault(text, sizeof(text), response->status, response->body, response->body_len);
    check(strlen(text) < sizeof(text));
    for (const char *p = text; *p; p++)
        check((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_response whole = {0}, again = {0};
    int r = http_parse(data, size, &whole);

    check(r == 0 || r == 1 || r == -EBADMSG || r == -EMSGSIZE);
    if (r != 1) {
        check(whole.status == 0);
        return 0;
    }
    check(whole.size <= size && whole.body_len <= HTTP_MAX_BODY && whole.size <= HTTP_MAX_HEAD + HTTP_MAX_BODY);
    check(whole.body + whole.body_len == (const char *)data + whole.size);
    check(whole.status >= 200 && whole.status <= 599);
    check(http_parse(data, whole.size, &again) == 1 && again.size == whole.size && again.status == whole.status);
    for (size_t n = whole.size > 200 ? whole.size - 200 : 0; n < whole.size; n++)
        check(http_parse(data, n, &again) == 0);
    fault(&whole);
    return 0;
}
