/* SPDX-License-Identifier: Apache-2.0 */
/* The image code alone has no VMs; what a test says is needed, is. */
#include "orchestrator/images/test-needed.h"

#include "orchestrator/images/store.h"

const char *test_needed;

int store_images_needed(struct strlist *ret, struct ic_error *error)
{
    return test_needed ? strlist_add(ret, test_needed, error) : 0;
}
