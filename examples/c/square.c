/* square.c - the first operation: square a number on a lent slot. */
#include <string.h>

#include "check.h"

static int square(const void *arg, size_t size, mutirao_result *result)
{
    int n;
    if (size != sizeof n) return mutirao_result_fail(result, 1, "an int is expected");
    memcpy(&n, arg, sizeof n);
    n *= n;
    return mutirao_result_set(result, &n, sizeof n);
}

static const mutirao_operation operations[] = {{"square", square, MUTIRAO_REPEATABLE}};

int main(int argc, char **argv)
{
    check(mutirao_init(&argc, &argv, operations, 1)); /* on a lent slot this does not return */

    mutirao_pool *pool;
    check(mutirao_open(NULL, &pool));

    const int n = 12;
    mutirao_bytes result;
    check(mutirao_call_wait(pool, "square", &n, sizeof n, &result));
    int squared;
    expect(result.size == sizeof squared, "the result is an int");
    memcpy(&squared, result.data, sizeof squared);
    mutirao_bytes_delete(&result);

    printf("%d squared is %d\n", n, squared);
    expect(squared == 144, "12 squared is 144");
    mutirao_close(pool);
    return 0;
}
