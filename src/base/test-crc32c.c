/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crc32c.h"

#include <string.h>

#include "base/test.h"

/* RFC 3720 §B.4, and the check value of the catalogues. */
static void known_sums(void **state)
{
    uint8_t bytes[32];

    assert_int_equal(crc32c(0, "", 0), 0);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x8a9136aa);
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x46dd794e);
}

static void in_parts(void **state)
{
    const char *digits = "123456789";

    for (size_t cut = 0; cut <= 9; cut++)
        assert_int_equal(crc32c(crc32c(0, digits, cut), digits + cut, 9 - cut), 0xe3069283);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_sums), cmocka_unit_test(in_parts)};

    return cmocka_run_group_tests_name("crc32c", tests, NULL, NULL);
}
