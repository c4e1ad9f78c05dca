/* A bag of tasks that outlives workers and nodes: squares, added up.
 *
 *     cc bag.c $(pkg-config --cflags --libs mutirao) && ./a.out
 */
#include "check.h"
#include <mutirao.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int square(const void *arg, size_t size, mutirao_result *result)
{
    uint64_t n;
    if (size != sizeof n) return mutirao_result_fail(result, 1, "a number of 64 bits is expected");
    memcpy(&n, arg, sizeof n);
    if (n == 7) return mutirao_result_fail(result, 7, "7 is not squared here");
    n *= n;
    return mutirao_result_set(result, &n, sizeof n);
}

static const mutirao_operation operations[] = {{"square", square, MUTIRAO_REPEATABLE}};

int main(int argc, char **argv)
{
    check(mutirao_init(&argc, &argv, operations, 1));
    mutirao_bag *bag;
    check(mutirao_bag_open(NULL, &bag));
    for (uint64_t n = 0; n < 100; n++)
        check(mutirao_bag_push(bag, "square", &n, sizeof n, NULL));
    uint64_t sum = 0;
    int failed = 0, more = 1;
    for (;;) {
        mutirao_bag_end end;
        check(mutirao_bag_next(bag, &end, &more));
        if (!more) break;
        if (end.error) {
            failed++;
            printf("task %" PRIu64 ": %s\n", end.task, mutirao_error_text(end.error));
            mutirao_error_delete(end.error);
            continue;
        }
        uint64_t result;
        memcpy(&result, end.result.data, sizeof result);
        sum += result;
        mutirao_bytes_delete(&end.result);
    }
    printf("%" PRIu64 ", %d failed\n", sum, failed);
    mutirao_bag_close(bag);
    return 0;
}
