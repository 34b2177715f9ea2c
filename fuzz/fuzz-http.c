/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client may send to the API socket: bytes through the parser of HTTP, the one of requests and the controller
 * of a VM that isn't there. The same bytes in one piece and in pieces of a size that the first byte tells must have
 * the same answers, and every answer is one response of the right form.
 */
#include <string.h>

#include <jansson.h>

#include "fuzz.h"
#include "monitor/api/http.h"
#include "monitor/api/request.h"
#include "monitor/api/test-ops.h"

struct session {
    struct fake_vm vm;
    struct controller controller;
    struct http_parser http;
    struct api_response response;
    uint64_t digest; /* of all answers */
};

static void handle(void *userdata, struct api_request *request, struct api_response *response)
{
    controller_handle(userdata, request, response);
}

static void digest(struct session *s, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        s->digest = (s->digest ^ (unsigned char)text[i]) * 1099511628211u; /* FNV-1a */
}

static void check_response(struct session *s)
{
    static char out[HTTP_MAX_HEAD + API_MAX_RESPONSE];
    const struct api_response *r = &s->response;
    size_t len = strnlen(r->body, sizeof(r->body));
    json_t *json = NULL;

    FUZZ_CHECK(len < sizeof(r->body));
    FUZZ_CHECK(r->status == 200 || r->status == 204 || r->status == 400);
    FUZZ_CHECK((len == 0) == (r->status == 204));
    if (len > 0) {
        json = json_loadb(r->body, len, JSON_REJECT_DUPLICATES, NULL);
        FUZZ_CHECK(json);
        FUZZ_CHECK(r->status == 200 || json_string_length(json_object_get(json, "fault_message")) > 0);
        json_decref(json);
    }
    digest(s, out, http_format(out, sizeof(out), r->status, r->body, s->http.keep_alive));
}

static void check_config(const struct session *s)
{
    const struct controller *c = &s->controller;
    const struct vm_config *config = &c->config;

    FUZZ_CHECK(config->machine.vcpu_count >= 1 && config->machine.vcpu_count <= VM_MAX_VCPUS);
    FUZZ_CHECK(config->machine.mem_size_mib >= VM_MIN_MEMORY_MIB && !config->machine.smt);
    FUZZ_CHECK(config->drive_count <= VM_MAX_DRIVES);
    FUZZ_CHECK(!config->balloon.present || config->balloon.amount_mib <= config->machine.mem_size_mib);
    FUZZ_CHECK(c->state == CONTROLLER_NOT_STARTED || config->boot.kernel_image_path || s->vm.loads > 0);
    for (size_t i = 0; i < config->drive_count; i++) {
        FUZZ_CHECK(config->drives[i].drive_id && config->drives[i].path_on_host);
        FUZZ_CHECK(i == 0 || !config->drives[i].is_root_device);
    }
}

/* False: the connection ends. */
static bool feed(struct session *s, const char *data, size_t len)
{
    while (len > 0) {
        size_t used;
        enum http_event event = http_feed(&s->http, data, len, &used);

        FUZZ_CHECK(used > 0 && used <= len && (event != HTTP_MORE || used == len));
        data += used;
        len -= used;
        if (event == HTTP_BAD) {
            FUZZ_CHECK(s->http.fault[0]);
            api_fault(&s->response, "%s", s->http.fault);
            check_response(s);
            return false;
        }
        if (event == HTTP_REQUEST) {
            FUZZ_CHECK(s->http.body_len <= API_MAX_BODY && strlen(s->http.path) < API_MAX_LINE);
            api_answer(
                    s->http.method, s->http.path, s->http.body, s->http.body_len, handle, &s->controller, &s->response);
            check_response(s);
            check_config(s);
            http_reset(&s->http);
        }
    }
    return true;
}

static uint64_t run(const uint8_t *data, size_t size, size_t step, bool fail)
{
    static struct session s;
    bool open = true;

    memset(&s, 0, sizeof(s));
    s.vm.fail = fail;
    controller_init(&s.controller, NULL, &fake_ops, &s.vm);
    http_init(&s.http);
    for (size_t at = 0; at < size && open; at += step)
        open = feed(&s, (const char *)data + at, MIN(step, size - at));
    http_reset(&s.http);
    controller_deinit(&s.controller);
    return s.digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    FUZZ_CHECK(run(data + 1, size - 1, size, data[0] >> 7) ==
               run(data + 1, size - 1, (data[0] & 0x7f) + 1u, data[0] >> 7));
    return 0;
}
