/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's first process that does nothing, while its kernel's messages are looked at. */
#include <unistd.h>

int main(void)
{
    for (;;)
        pause();
}
