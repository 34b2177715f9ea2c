/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/manifest.h"

#include <stdio.h>
#include <string.h>

#include "base/test.h"
#include "orchestrator/images/text.h"

static const char valid[] =
        "{\"format\":1,\"name\":\"base\",\"parts\":{"
        "\"kernel\":{\"file\":\"vmlinux\",\"size\":10,"
        "\"sha256\":\"1111111111111111111111111111111111111111111111111111111111111111\"},"
        "\"initramfs\":{\"file\":\"initramfs\",\"size\":20,"
        "\"sha256\":\"2222222222222222222222222222222222222222222222222222222222222222\"},"
        "\"rootfs\":{\"file\":\"rootfs.erofs\",\"size\":30,"
        "\"sha256\":\"3333333333333333333333333333333333333333333333333333333333333333\"}},"
        "\"kernel\":{\"kind\":\"debian\",\"release\":\"6.1.0\",\"version\":\"6.1.1-1\",\"devices\":\"acpi\"},"
        "\"agent_sha256\":\"4444444444444444444444444444444444444444444444444444444444444444\","
        "\"recipe_key\":\"5555555555555555555555555555555555555555555555555555555555555555\","
        "\"rootfs_key\":\"6666666666666666666666666666666666666666666666666666666666666666\","
        "\"defaults\":{\"user\":\"agent\",\"workdir\":null,\"env\":[\"A=b\"]}}";

static void a_manifest_survives_the_round_trip(void **state)
{
    struct manifest manifest = {0}, again = {0};
    char *text = NULL, *second = NULL;
    size_t len, second_len;

    assert_int_equal(manifest_parse(valid, strlen(valid), "m", &manifest, NULL), 0);
    assert_int_equal(manifest.parts[PART_ROOTFS].size_bytes, 30);
    assert_string_equal(manifest.user, "agent");
    assert_null(manifest.workdir);
    assert_string_equal(manifest.env[0], "A=b");
    assert_null(manifest.env[1]);
    assert_int_equal(manifest_format(&manifest, &text, &len, NULL), 0);
    assert_int_equal(manifest_parse(text, len, "m", &again, NULL), 0);
    assert_int_equal(manifest_format(&again, &second, &second_len, NULL), 0);
    assert_string_equal(text, second);
    free(text);
    free(second);
    manifest_deinit(&manifest);
    manifest_deinit(&again);
}

/* The valid manifest with the first `from` replaced. */
static int parse_changed(const char *from, const char *to, struct ic_error *error)
{
    const char *at = strstr(valid, from);
    struct manifest manifest = {0};
    char text[4096];
    int r;

    assert_non_null(at);
    (void)snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - valid), valid, to, at + strlen(from));
    r = manifest_parse(text, strlen(text), "images/x/manifest.json", &manifest, error);
    manifest_deinit(&manifest);
    return r;
}

static void each_wrong_field_is_refused(void **state)
{
    static const struct {
        const char *from, *to;
    } changes[] = {
            {"\"format\":1", "\"format\":2"},
            {"\"format\":1", "\"format\":\"1\""},
            {"\"format\":1,", ""},
            {"\"format\":1", "\"format\":1,\"format\":1"},
            {"\"format\":1", "\"format\":1,\"more\":1"},
            {"\"name\":\"base\"", "\"name\":\"../base\""},
            {"\"name\":\"base\"", "\"name\":\"\""},
            {"rootfs.erofs", "../rootfs.erofs"},
            {"rootfs.erofs", "/etc/passwd"},
            {"\"file\":\"vmlinux\"", "\"file\":\"initramfs\""},
            {"\"size\":10", "\"size\":0"},
            {"\"size\":10", "\"size\":-10"},
            {"\"size\":10", "\"size\":10.5"},
            {"\"size\":10", "\"size\":9223372036854775807"},
            {"\"size\":10", "\"size\":10,\"mode\":1"},
            {"1111111111", "111111111"},
            {"1111111111", "111111111G"},
            {"\"kind\":\"debian\"", "\"kind\":\"windows\""},
            {"\"devices\":\"acpi\"", "\"devices\":\"pci\""},
            {"\"release\":\"6.1.0\"", "\"release\":\"6.1\\n\""},
            {"\"user\":\"agent\"", "\"user\":\"a b\""},
            {"\"user\":\"agent\"", "\"user\":\"\""},
            {"\"workdir\":null", "\"workdir\":\"home\""},
            {"\"env\":[\"A=b\"]", "\"env\":[\"=b\"]"},
            {"\"env\":[\"A=b\"]", "\"env\":[1]"},
            {"\"env\":[\"A=b\"]", "\"env\":{}"},
            {"A=b", "A=\\u0000"},
            {"}}", "}"},
            {"}}", "}}x"},
    };
    struct ic_error error;

    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        assert_int_equal(parse_changed(changes[i].from, changes[i].to, &error), -IC_ERR_CORRUPT);
        assert_non_null(strstr(error.message, "images/x/manifest.json: "));
    }
}

static void size_is_bounded(void **state)
{
    struct manifest manifest = {0};
    char *big = malloc(MANIFEST_BYTES_MAX + 1);

    assert_non_null(big);
    memset(big, ' ', MANIFEST_BYTES_MAX + 1);
    assert_int_equal(manifest_parse(big, MANIFEST_BYTES_MAX + 1, "m", &manifest, NULL), -IC_ERR_CORRUPT);
    assert_int_equal(manifest_parse(valid, 0, "m", &manifest, NULL), -IC_ERR_CORRUPT);
    for (size_t len = 1; len < strlen(valid); len += 7)
        assert_int_equal(manifest_parse(valid, len, "m", &manifest, NULL), -IC_ERR_CORRUPT);
    free(big);
}

static void keys_keep_their_parts_apart(void **state)
{
    struct digest_key key;
    char one[65], two[65];

    digest_key_init(&key);
    digest_key_add_str(&key, "ab");
    digest_key_add_str(&key, "c");
    digest_key_finish(&key, one);
    digest_key_init(&key);
    digest_key_add_str(&key, "a");
    digest_key_add_str(&key, "bc");
    digest_key_finish(&key, two);
    assert_string_not_equal(one, two);
    digest_bytes("abc", 3, one); /* FIPS 180-2, B.1 */
    assert_string_equal(one, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void list_files_hold_plain_words(void **state)
{
    struct strlist list = {0};
    struct ic_error error;

    assert_int_equal(strlist_parse("# one\n\n  python3 \nlibc6\n", "packages", &list, &error), 0);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.items[0], "python3");
    assert_int_equal(strlist_parse("ok\na b\n", "packages", &list, &error), -IC_ERR_INVALID);
    assert_non_null(strstr(error.message, "packages:2"));
    assert_int_equal(strlist_parse("$(x)", "packages", &list, &error), -IC_ERR_INVALID);
    strlist_deinit(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_manifest_survives_the_round_trip),
            cmocka_unit_test(each_wrong_field_is_refused),
            cmocka_unit_test(size_is_bounded),
            cmocka_unit_test(keys_keep_their_parts_apart),
            cmocka_unit_test(list_files_hold_plain_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
